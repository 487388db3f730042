package lab

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"ambientlab/internal/problem"
)

// targetPrefix begins the names of the lab's targets; Mage's own arguments have none.
const targetPrefix = "sm:"

// listFlags are the flags that take a list, and so may be given more than once.
var listFlags = []string{"without"}

// call is a target on the command line, with the values of each of its flags.
type call struct {
	target string
	flags  map[string][]string
}

// calls splits a command line into targets and their flags as Mage does: a target's flags follow it, as -name=value or,
// for a switch, -name (magefile/mage, parse/parse.go).
func calls(args []string) []call {
	var all []call
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end] // the command of sm:run comes after it
	}
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			all = append(all, call{target: strings.ToLower(arg), flags: map[string][]string{}})
			continue
		}
		if len(all) == 0 {
			continue
		}
		name, value, hasValue := strings.Cut(arg[1:], "=")
		if !hasValue {
			value = "true"
		}
		flags, name := all[len(all)-1].flags, strings.ToLower(name)
		flags[name] = append(flags[name], value)
	}
	return slices.DeleteFunc(all, func(c call) bool { return !strings.HasPrefix(c.target, targetPrefix) })
}

// refuseRepeatedFlags refuses a flag that a target is given more than once, since Mage passes on the last value only. A
// flag that takes a list may be repeated, unless the target itself is.
func refuseRepeatedFlags(args []string) error {
	all := calls(args)
	count := map[string]int{}
	for _, c := range all {
		count[c.target]++
	}
	var wrong []string
	for _, c := range all {
		for _, name := range slices.Sorted(maps.Keys(c.flags)) {
			values := c.flags[name]
			isList := slices.Contains(listFlags, name)
			switch {
			case len(values) == 1, isList && count[c.target] == 1:
			case isList:
				wrong = append(wrong,
					fmt.Sprintf("%s is given more than once, and -%s too; accepted: one -%s=%s", c.target, name, name,
						strings.Join(values, ",")))
			default:
				wrong = append(wrong,
					fmt.Sprintf("%s has -%s more than once: %s; accepted: once", c.target, name,
						strings.Join(values, ", ")))
			}
		}
	}
	if len(wrong) > 0 {
		return problem.New(problem.SettingInvalid, nil, "%s", strings.Join(wrong, "\n"))
	}
	return nil
}

// ListFlag gives all values of a list flag that a target was given on a command line, joined with commas. last is the
// value that Mage passed on: the last one, or "".
func ListFlag(args []string, target, flag, last string) string {
	for _, c := range calls(args) {
		values := c.flags[flag]
		if c.target == targetPrefix+target && len(values) > 0 && values[len(values)-1] == last {
			return strings.Join(values, ",")
		}
	}
	return last
}
