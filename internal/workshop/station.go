// Package workshop leads a learner through the lessons: a list of stations, each with a goal, the claims that decide
// whether it is reached, hints and an explanation. Which station the learner is at is read from the cluster; only what
// is the learner's own, such as predictions, is kept in a file. It has two surfaces: a terminal and a page on loopback.
package workshop

import (
	"fmt"
	"slices"
	"strings"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/probe"
	"ambientlab/internal/session"
	"ambientlab/internal/upstream"
	"ambientlab/specs"
)

// Station is one part of the workshop. It is data.
type Station struct {
	// Name is that of its text in specs/stations.
	Name string
	// Lesson is the lesson whose objects the station shows; empty where it is about none.
	Lesson string
	// Claims are the IDs of the claims that decide whether the station is done.
	Claims []string
	// Asked gives the lessons that the claims are judged with, from those that are on.
	Asked func(on probe.Lessons) probe.Lessons
	// Met tells whether the cluster is in the state that the station asks for. Whether its effect is there is for the
	// claims to decide. done tells which stations the learner has finished.
	Met func(look Look, done func(station string) bool) bool
	// Possible, if not nil, tells whether an installed lab can show the station. One that it cannot show is left out.
	Possible func(Look) bool
	// Undo is the command that goes back to the state before the station; empty where there is none.
	Undo string
	Text
}

// Text is what a station tells the learner, read from Markdown.
type Text struct {
	Title, Goal string
	// Question is the prediction to make first; Choices are its answers, and Answer is the letter of the right one.
	Question string
	Choices  []Choice
	Answer   string
	// Steps and Next are Markdown with blocks of commands; Hints are the first two hints.
	Steps       string
	Hints       []string
	Explanation string
	Next        string
}

// Choice is one answer to the question of a prediction.
type Choice struct{ Letter, Text string }

// Do lists the commands of the steps that change the lab: those of targets, but for sm:traffic -count and sm:status,
// which only show something.
func (s Station) Do() []string {
	return slices.DeleteFunc(Commands(s.Steps), func(command string) bool {
		return !strings.Contains(command, " sm:") || strings.Contains(command, " -count=") ||
			strings.HasSuffix(command, " sm:status")
	})
}

// Stations lists the stations in order. command is what a user types before the name of a target, such as mage.
func Stations(command string) ([]Station, error) {
	same := func(on probe.Lessons) probe.Lessons { return on }
	withWaypoint := func(on probe.Lessons) probe.Lessons { return lesson.With(on, lesson.Waypoint()) }
	authz := func(without string, strict bool) func(probe.Lessons) probe.Lessons {
		return func(on probe.Lessons) probe.Lessons {
			return lesson.With(withWaypoint(on), lesson.Authz(without, strict))
		}
	}
	policy := func(fits func(params.Authz) bool) func(Look, func(string) bool) bool {
		return func(look Look, _ func(string) bool) bool {
			authz := look.Lessons.Authz()
			return look.Lessons.On("waypoint") && authz != nil && fits(*authz)
		}
	}
	withLesson := func(l lesson.Lesson) func(probe.Lessons) probe.Lessons {
		return func(on probe.Lessons) probe.Lessons {
			if on = withWaypoint(on); !on.On(l.Name) { // one that is on may have other parameters
				on = lesson.With(on, l)
			}
			return on
		}
	}
	isOn := func(names ...string) func(Look, func(string) bool) bool {
		return func(look Look, _ func(string) bool) bool {
			return !slices.ContainsFunc(names, func(name string) bool { return !look.Lessons.On(name) })
		}
	}
	all := []Station{
		{
			Name: "install", Asked: same,
			Met: func(look Look, _ func(string) bool) bool { return look.Installed },
		},
		{
			Name: "apps", Lesson: "apps", Asked: same, Undo: "mage sm:apps -off", Met: isOn("apps"),
			Claims: []string{"reach-appa", "reach-gateway", "gateway-other-host"},
		},
		{
			Name: "waypoint", Lesson: "waypoint", Undo: "mage sm:waypoint -off", Met: isOn("waypoint"),
			Claims: []string{"waypoint-appa", "waypoint-gateway", "waypoint-appb-only"},
			Asked:  withWaypoint,
		},
		{
			Name: "fault", Lesson: "fault", Undo: "mage sm:fault -off", Met: isOn("waypoint", "fault"),
			Claims: []string{"fault-appa", "fault-gateway", "fault-prefix", "fault-exact"},
			Asked:  withLesson(lesson.Fault(params.DefaultFault())),
		},
		{
			Name: "authz", Lesson: "authz", Undo: "mage sm:authz -off", Asked: authz("", false),
			Claims: []string{
				"authz-get-appa", "authz-get-gateway", "authz-post-appa", "authz-post-gateway", "authz-outsider",
			},
			Met: policy(func(params.Authz) bool { return true }),
		},
		{
			Name: "without", Lesson: "authz", Undo: "mage sm:authz", Asked: authz(names.AppA, false),
			Claims: []string{"authz-taken-out-appa", "authz-get-gateway"},
			Met:    policy(func(a params.Authz) bool { return !a.Allows(names.AppA) }),
		},
		{
			Name: "strict", Lesson: "authz", Undo: "mage sm:authz", Asked: authz("", true),
			Claims: []string{"authz-get-appa", "authz-get-gateway", "direct-closed", "unmeshed-closed"},
			Met:    policy(func(a params.Authz) bool { return a.Strict }),
		},
		{
			Name: "telemetry", Lesson: "telemetry", Undo: "mage sm:telemetry -off", Met: isOn("telemetry"),
			Claims: []string{"prometheus-targets", "prometheus-edges", "prometheus-denied", "prometheus-delayed"},
			Asked:  withLesson(lesson.Telemetry()),
			Possible: func(look Look) bool {
				return look.NoPackets == "" && slices.Contains(look.Addons, upstream.Prometheus)
			},
		},
		{
			Name: "split", Lesson: "split", Undo: "mage sm:split -off", Met: isOn("waypoint", "split"),
			Claims: []string{"split-appa", "split-gateway"}, Asked: withLesson(lesson.Split(lesson.DefaultWeight)),
		},
		{
			Name: "l4", Lesson: "l4", Undo: "mage sm:l4 -off", Met: isOn("waypoint", "l4"),
			Claims: []string{"l4-denied", "l4-http", "l4-allowed", "l4-through"},
			Asked:  withLesson(lesson.L4(false)),
		},
		{
			Name: "off",
			Claims: []string{
				"waypoint-off", "waypoint-off-gateway", "fault-off-appa", "fault-off-gateway", "authz-off-post",
				"authz-off-outsider", "l4-off",
			},
			Asked: func(probe.Lessons) probe.Lessons { return lesson.States(lesson.Apps()) },
			Met: func(look Look, done func(string) bool) bool {
				return look.Lessons.On("apps") && done("strict") && !slices.ContainsFunc(look.Lessons,
					func(s probe.LessonState) bool { return s.On && s.Name != "apps" })
			},
		},
	}
	for i := range all {
		raw, err := specs.Station(all[i].Name)
		if err != nil {
			return nil, err
		}
		all[i].Undo = session.TypedWith(command, all[i].Undo)
		if all[i].Text, err = parse(session.TypedWith(command, raw)); err != nil {
			return nil, fmt.Errorf("the text of station %s: %w", all[i].Name, err)
		}
	}
	return all, nil
}

// possible lists the stations that a lab can show. One that is not installed yet may be able to show all.
func possible(all []Station, look Look) []Station {
	return slices.DeleteFunc(slices.Clone(all), func(s Station) bool {
		return s.Possible != nil && look.Installed && !s.Possible(look)
	})
}

// start gives the index of the station at which a learner is: the last one whose state the cluster is in, or the one
// after it where the learner has finished that.
func start(all []Station, look Look, done func(string) bool) int {
	at := 0
	for i, s := range all {
		if s.Met(look, done) {
			at = i
		}
	}
	if done(all[at].Name) && at+1 < len(all) {
		at++
	}
	return at
}

// parse reads the Markdown of a station: a title, and one section for each field of Text.
func parse(markdown string) (Text, error) {
	sections, err := sectionsOf(markdown, "Goal", "Prediction", "Steps", "Hints", "Explanation", "Next")
	if err != nil {
		return Text{}, err
	}
	t := Text{Title: sections[""]}
	t.Goal, t.Steps = sections["Goal"], sections["Steps"]
	t.Explanation, t.Next = sections["Explanation"], sections["Next"]
	for line := range strings.Lines(sections["Prediction"]) {
		line = strings.TrimSpace(line)
		choice, isChoice := strings.CutPrefix(line, "- ")
		answer, isAnswer := strings.CutPrefix(line, "Answer: ")
		switch {
		case isChoice:
			letter, text, _ := strings.Cut(choice, ": ")
			t.Choices = append(t.Choices, Choice{letter, text})
		case isAnswer:
			t.Answer = answer
		case line != "":
			t.Question = strings.TrimSpace(t.Question + " " + line)
		}
	}
	if !slices.ContainsFunc(t.Choices, func(c Choice) bool { return c.Letter == t.Answer }) {
		return t, fmt.Errorf("the answer %q is none of the choices", t.Answer)
	}
	for line := range strings.Lines(sections["Hints"]) {
		number, hint, found := strings.Cut(strings.TrimSpace(line), ". ")
		if found && len(number) == 1 && number[0] >= '1' && number[0] <= '9' {
			t.Hints = append(t.Hints, hint)
		} else if len(t.Hints) > 0 {
			t.Hints[len(t.Hints)-1] += " " + strings.TrimSpace(line)
		}
	}
	if len(t.Hints) != 2 {
		return t, fmt.Errorf("%d hints instead of 2", len(t.Hints))
	}
	return t, nil
}

// sectionsOf gives the sections of a Markdown text by their titles, and the title of the text by "". Those that are
// needed must not be empty.
func sectionsOf(markdown string, needed ...string) (map[string]string, error) {
	head, rest, _ := strings.Cut(markdown, "\n## ")
	title, found := strings.CutPrefix(strings.TrimSpace(head), "# ")
	if !found {
		return nil, fmt.Errorf("the first line is not a title")
	}
	sections := map[string]string{"": title}
	for section := range strings.SplitSeq(rest, "\n## ") {
		name, body, _ := strings.Cut(section, "\n")
		sections[name] = strings.TrimSpace(body)
	}
	for _, name := range needed {
		if sections[name] == "" {
			return nil, fmt.Errorf("section %s is missing or empty", name)
		}
	}
	return sections, nil
}

// defaultNamespace is the namespace that the texts of the stations name.
const defaultNamespace = "default"

// in gives the station with the namespace of a lab in its commands and identities.
func (s Station) in(namespace string) Station {
	if namespace == "" || namespace == defaultNamespace {
		return s
	}
	other := strings.NewReplacer("kubectl -n "+defaultNamespace+" ", "kubectl -n "+namespace+" ",
		"/ns/"+defaultNamespace+"/", "/ns/"+namespace+"/")
	for _, text := range []*string{&s.Goal, &s.Question, &s.Steps, &s.Explanation, &s.Next} {
		*text = other.Replace(*text)
	}
	s.Choices, s.Hints = slices.Clone(s.Choices), slices.Clone(s.Hints)
	for i := range s.Choices {
		s.Choices[i].Text = other.Replace(s.Choices[i].Text)
	}
	for i := range s.Hints {
		s.Hints[i] = other.Replace(s.Hints[i])
	}
	return s
}

// Commands lists the commands in the blocks of a Markdown text, a line each.
func Commands(markdown string) []string {
	var all []string
	inside := false
	for line := range strings.Lines(markdown) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(line, "```"):
			inside = !inside && line == "```sh"
		case inside && line != "":
			all = append(all, line)
		}
	}
	return all
}
