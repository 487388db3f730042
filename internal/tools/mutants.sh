#!/bin/sh
# Makes small changes (mutants) to the packages of pure logic with gremlins (https://gremlins.dev). Prints for each package
# the share of the mutants that its tests notice, and every mutant that they do not notice. Fails if a share is below 90 %.
# A mutant that the tests do not run counts as not noticed, one that makes them run out of time as noticed. Mutants of case
# clauses and of package-level declarations do not count: Go's coverage does not see these, so gremlins never tries them.
#
# Usage, in the folder of the main module: internal/tools/mutants.sh [FOLDER...]
set -eu

# Per line: the folder of a package, and two regular expressions: its files of pure logic, and the tests to run.
packages='
internal/engine       .*\.go  .
internal/lb           .*\.go  .
internal/probe/stats  .*\.go  .
internal/probe        judge\.go  Judge
internal/mesh         (service|delay|policy)\.go  Service|Gateway|Route|Share|Paths|Authz|Methods|Denial|Held|Fault
internal/session      settings\.go  .
internal/apply        ready\.go  ^Test(.*States|Wait.*|Ready.*|WebhookIs.*|WebhookOf.*|HasReadyPod|Deleted.*)$
'

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
go build -modfile=internal/tools/go.mod -o "$work/gremlins" github.com/go-gremlins/gremlins/cmd/gremlins
status=0

# unleash FOLDER FILES TESTS runs gremlins on one package. gremlins is told which files to leave out.
unleash() {
	folder=$1 files=$2 tests=$3
	set -- --exclude-files /
	for file in "$folder"/*.go; do
		name=$(basename "$file")
		echo "$name" | grep -qEx "$files" || set -- "$@" --exclude-files "^$name\$"
	done
	GOFLAGS="${GOFLAGS:-} -vet=off -run=$tests" "$work/gremlins" unleash --timeout-coefficient 20 "$@" "./$folder" >"$work/log" 2>&1 || {
		cat "$work/log"
		exit 1
	}
	awk -v folder="$folder" '
		# untried says whether the source line is one that coverage does not see.
		function untried(place,    at, line, n, group) {
			split(place, at, ":")
			for (n = 1; n <= at[2]; n++) {
				getline line < (folder "/" at[1])
				if (line ~ /^(const|var) \(/) group = 1
				if (line ~ /^\)/) group = 0
			}
			close(folder "/" at[1])
			return line ~ /^[ \t]*case / || line ~ /^(const|var) / || group
		}
		/^ *NOT COVERED / && untried($NF) { next }
		/^ *NOT COVERED / { uncovered++ }
		/^ *(LIVED|NOT COVERED) / { sub(/^ */, "  "); survivors = survivors $0 "\n" }
		/^Killed:/ { gsub(/,/, ""); killed = $2; lived = $4 }
		/^Timed out:/ { gsub(/,/, ""); killed += $3 }
		END {
			total = killed + lived + uncovered
			share = total > 0 ? 100 * killed / total : 0
			printf "%-21s %5.1f %% of %d mutants noticed\n%s", folder, share, total, survivors
			exit share < 90
		}' "$work/log" || status=1
}

echo "$packages" >"$work/packages"
while read -r folder files tests; do
	[ -n "$folder" ] || continue
	[ $# -eq 0 ] || case " $* " in *" $folder "*) ;; *) continue ;; esac
	unleash "$folder" "$files" "$tests"
done <"$work/packages"
exit $status
