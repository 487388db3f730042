package workshop

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"ambientlab/internal/lesson"
	"ambientlab/internal/probe"
	"ambientlab/internal/sabotage"
)

// Lab is what the workshop needs of a lab.
type Lab interface {
	// Look reads the state of the lab. A lab that is not installed is no error.
	Look(ctx context.Context) (Look, error)
	// Watch calls changed with the name of an object whenever one that matters to a claim has changed, until ctx ends.
	Watch(ctx context.Context, changed func(object string)) error
	// Judge judges claims. lessons are those that the claims are judged with.
	Judge(ctx context.Context, lessons probe.Lessons, claims []string, progress func(string)) (probe.Report, error)
	// Type runs a command as the learner would, and passes each line that it prints to line.
	Type(ctx context.Context, command string, line func(string)) error
	// Manual gives the objects of a lesson and the commands for them, for a learner who types them.
	Manual(ctx context.Context, lesson string, lessons probe.Lessons) (Manual, error)
	// Break makes the changes of a sabotage, by its number from 1 on. Mend undoes what no target undoes, and gives the
	// commands that undo the rest.
	Break(ctx context.Context, number int) error
	Mend(ctx context.Context, number int) (commands []string, err error)
}

// Look is the state of a lab at one time.
type Look struct {
	// Namespace is that of the applications and the lessons; empty means default.
	Namespace string
	// Lab is its name; Installed tells whether sm:install has finished, Why why not, and Created when it was.
	Lab       string
	Installed bool
	Why       string
	Created   time.Time
	// Lessons are those that are on: recorded by their targets, or made by hand.
	Lessons probe.Lessons
	// ByHand names those of them that no target has recorded.
	ByHand []string
	// NoPackets is why no packets flow, or "".
	NoPackets string
	// Addons are the telemetry add-ons that are installed.
	Addons []string
}

// Manual is what a learner needs to do a lesson without its target.
type Manual struct {
	// Files are the objects as YAML, with comments, by the name of their file.
	Files []File
	// Differences are what the lesson's target would change now; none means that the cluster has it all. Diffs show the
	// objects that exist and differ from the files.
	Differences []string
	Diffs       []File
	// Commands apply the files with kubectl.
	Commands []string
}

// File is a named text.
type File struct{ Name, Text string }

// Item is a claim that counts for a station, with the last verdict on it.
type Item struct {
	Title string
	// Verdict is empty before the first check. Text is the evidence that says most.
	Verdict probe.Verdict
	Text    string
}

// View is all that a surface shows, at one time. It does not change.
type View struct {
	Station
	Index, Count int
	Look         Look
	Notes        Notes
	Items        []Item
	// Done tells whether every claim of the station is proven, Finished whether the learner has done every station.
	Done, Finished bool
	// Broken tells that the station is the search for a fault that sm:break has put in. Fixed is how many different
	// faults the learner has fixed, of Faults.
	Broken        bool
	Fixed, Faults int
	// Report is the last check of this station; nil before the first.
	Report *probe.Report
	// Checking tells what is being measured, or is empty. Doing is the command that runs, Output what it printed.
	Checking, Doing string
	Output          []string
	// Hints are those that were taken.
	Hints []string
	// Changes counts the changes of the lab that were noticed, Checks the checks.
	Changes, Checks int
	// Failed is why the last thing that the learner asked for failed, Trouble what goes wrong with the lab. Told is
	// what the learner is told once, such as which fault was given up. Each may be empty.
	Failed, Trouble, Told string
}

// Engine follows a learner through the stations.
type Engine struct {
	lab     Lab
	feed    *Feed
	all     []Station
	broken  Text // what the learner is told while a fault is in the lab
	claims  []probe.Claim
	file    string
	command string // what the learner types before the name of a target

	mu       sync.Mutex
	changed  chan struct{} // closed at the next change of what View returns
	progress Progress
	look     Look
	stations []Station // those that the lab can show
	at       int
	report   *probe.Report
	checking string
	doing    string
	output   []string
	failed   string
	trouble  string
	told     string
	changes  int
	checks   int
	asked    bool      // the learner asked for a check
	touched  time.Time // when an object last changed
	repeats  int       // checks since then because a claim was undecided
	kicks    chan struct{}
}

// How the engine waits: quiet is how long no object may have changed before a check, patience how long that is waited
// for. A proxy has a changed configuration a moment later, so a check that proves nothing is repeated, pause apart,
// while the last change is younger than fresh. A check that decides nothing, such as on a busy machine, is repeated
// until it does: the first time undecided later, then after twice the time, at most undecidedMost.
const (
	quiet    = 400 * time.Millisecond
	patience = 3 * time.Second
	pause    = time.Second
	fresh    = 20 * time.Second

	undecided     = 5 * time.Second
	undecidedMost = time.Minute
	// symptom is how long the first effect of a fault is waited for.
	symptom = 2 * time.Minute
	// lookEvery is how often a lab that is not installed is looked at: there is no API yet that could be watched.
	lookEvery = 2 * time.Second
	// outputLines is how many lines of a command are kept.
	outputLines = 200
)

// New makes an engine that keeps the learner's notes in a file. command is what the learner types before the name of a
// target, such as mage.
func New(lab Lab, feed *Feed, claims []probe.Claim, file, command string) (*Engine, error) {
	stations, err := Stations(command)
	if err != nil {
		return nil, err
	}
	broken, err := breakText(command)
	if err != nil {
		return nil, err
	}
	progress, err := Load(file)
	if err != nil {
		return nil, err
	}
	return &Engine{
		lab: lab, feed: feed, all: stations, stations: stations, broken: broken, claims: claims, file: file,
		command: command, progress: progress, changed: make(chan struct{}), kicks: make(chan struct{}, 1),
	}, nil
}

// Open looks at the lab and finds the learner's station.
func (e *Engine) Open(ctx context.Context) error {
	look, err := e.lab.Look(ctx)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.take(look)
	e.at = start(e.stations, look, e.progress.done)
	return e.came()
}

// take takes in a look at the lab: the stations that it can show, and the notes on it. The learner stays at a station.
// The caller holds the mutex.
func (e *Engine) take(look Look) {
	if e.progress.Stations == nil {
		e.progress.Stations = map[string]Notes{}
	}
	if look.Installed && !e.look.Installed {
		e.progress = e.progress.of(look.Created, e.all[0].Name)
	}
	here := e.stations[e.at].Name
	e.look, e.stations = look, possible(e.all, look)
	e.at = max(0, slices.IndexFunc(e.stations, func(s Station) bool { return s.Name == here }))
}

// fault is what sm:break has put in; nil where there is none, or no lab. The caller holds the mutex.
func (e *Engine) fault() *Broken {
	if !e.look.Installed {
		return nil
	}
	return e.progress.Break
}

// current is the station that is shown: the learner's, or the search for a fault. The caller holds the mutex.
func (e *Engine) current() Station {
	if e.fault() != nil {
		return e.fault().station(e.broken).in(e.look.Namespace)
	}
	return e.stations[e.at].in(e.look.Namespace)
}

// came notes when the learner came to the station.
func (e *Engine) came() error {
	if !e.notes().Began.IsZero() {
		return nil
	}
	return e.note(func(n *Notes) { n.Began = time.Now().UTC() })
}

// notes gives the notes on the current station. The caller holds the mutex.
func (e *Engine) notes() Notes {
	if e.fault() != nil {
		return e.fault().Notes
	}
	if e.coming() {
		return e.progress.Coming
	}
	return e.progress.Stations[e.current().Name]
}

// coming tells whether the learner's notes are about a lab that is not installed yet. The caller holds the mutex.
func (e *Engine) coming() bool { return e.at == 0 && !e.look.Installed }

// note changes the notes on the current station, in the file too. The caller holds the mutex.
func (e *Engine) note(change func(*Notes)) error {
	notes := e.notes()
	change(&notes)
	switch {
	case e.fault() != nil:
		e.progress.Break.Notes = notes
	case e.coming():
		e.progress.Coming = notes
	default:
		e.progress.Stations[e.current().Name] = notes
	}
	return e.progress.Save(e.file)
}

// Run follows the lab until ctx ends: it notices changes and checks.
func (e *Engine) Run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { e.follow(ctx) })
	loops.Go(func() { e.check(ctx) })
	e.kick()
	loops.Wait()
}

// follow waits until the lab is installed, and then watches its objects.
func (e *Engine) follow(ctx context.Context) {
	for {
		if e.View().Look.Installed {
			err := e.lab.Watch(ctx, func(object string) {
				e.feed.Refollow(object)
				e.set(func() {
					e.touch()
					e.changes++
				})
				e.kick()
			})
			if ctx.Err() != nil {
				return
			}
			e.fail(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookEvery):
			e.kick()
		}
	}
}

// kick asks for a check; one that is asked for already is enough.
func (e *Engine) kick() {
	select {
	case e.kicks <- struct{}{}:
	default:
	}
}

// check runs a check after each kick. A check during which something changed is given up for a new one.
func (e *Engine) check(ctx context.Context) {
	kicked := false
	for ctx.Err() == nil {
		var again <-chan time.Time
		if pause := e.unsettled(); pause > 0 {
			again = time.After(pause)
		}
		if !kicked {
			select {
			case <-ctx.Done():
				return
			case <-e.kicks:
			case <-again:
			}
		}
		e.settle(ctx)
		once, cancel := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			e.once(once)
		}()
		select {
		case <-ended:
			kicked = false
		case <-e.kicks:
			kicked = true
		case <-ctx.Done():
		}
		cancel()
		<-ended
	}
}

// unsettled gives the time until the next check although nothing changes, or 0. The last change may be so young that a
// claim which does not hold yet will do so in a moment, or the last check did not decide a claim.
func (e *Engine) unsettled() time.Duration {
	v := e.View()
	e.mu.Lock()
	defer e.mu.Unlock()
	limit := fresh
	if e.fault() != nil && !e.fault().Seen {
		limit = symptom
	}
	switch {
	case v.Report == nil || v.Done || v.Doing != "":
		return 0
	case time.Since(e.touched) < limit:
		return pause
	case v.Report.Count(probe.Inconclusive) > 0:
		if e.repeats++; e.repeats > 4 {
			return undecidedMost
		}
		return undecided << (e.repeats - 1)
	}
	return 0
}

// touch notes that the lab has changed. The caller holds the mutex.
func (e *Engine) touch() { e.touched, e.repeats = time.Now(), 0 }

// settle waits until no object has changed for a moment.
func (e *Engine) settle(ctx context.Context) {
	limit := time.After(patience)
	for {
		select {
		case <-e.kicks:
		case <-time.After(quiet):
			return
		case <-limit:
			return
		case <-ctx.Done():
			return
		}
	}
}

// once looks at the lab and judges the claims of the station.
func (e *Engine) once(ctx context.Context) {
	look, err := e.lab.Look(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		e.fail(err)
		return
	}
	s, lessons, claims, needed := e.seen(look)
	e.set(func() { e.trouble = "" })
	e.feed.Follow(look)
	if len(claims) == 0 || !needed {
		return
	}
	e.set(func() { e.checking = "waiting for the requests that are under way" })
	resume := e.feed.Pause(ctx)
	found, err := e.lab.Judge(ctx, lessons, claims, func(text string) { e.set(func() { e.checking = text }) })
	resume()
	if ctx.Err() != nil {
		e.set(func() { e.checking = "" })
		return
	}
	e.set(func() {
		e.checking = ""
		e.show(err)
		if err != nil || e.current().Name != s.Name { // the learner may have gone on meanwhile
			return
		}
		e.report = &found
		e.checks++
		e.asked = false
		if broken := e.fault(); broken != nil && !found.Proven() && !broken.Seen {
			broken.Seen = true
			e.show(e.progress.Save(e.file))
		}
		if e.proven() {
			e.finish()
		}
	})
}

// seen takes in a look at the lab. It gives the station, what its claims are judged with, and whether a check makes
// sense: the cluster is in the state that the station asks for, something has just changed, or the learner asked.
func (e *Engine) seen(look Look) (s Station, lessons probe.Lessons, claims []string, needed bool) {
	e.set(func() {
		before, deleted := start(e.stations, e.look, e.progress.done), e.look.Installed && !look.Installed
		e.take(look)
		at := start(e.stations, look, e.progress.done)
		switch {
		case deleted:
			e.move(0)
		// A learner who typed the target of a later station is at that station. One who went back to a station stays.
		case at > max(before, e.at) && e.fault() == nil && !e.stations[e.at].Met(look, e.progress.done):
			e.move(at)
		}
		s = e.current()
		if len(s.Claims) == 0 && e.met(s) {
			e.finish()
		}
		lessons = s.Asked(look.Lessons)
		for _, c := range e.counted(s, look) {
			claims = append(claims, c.ID)
		}
		needed = look.Lessons.On("apps") && e.doing == "" &&
			(e.asked || s.Met(look, e.progress.done) || time.Since(e.touched) < fresh)
	})
	return s, lessons, claims, needed
}

// counted lists the claims that decide whether a station is done, in the way that the lab can decide them.
func (e *Engine) counted(s Station, look Look) []probe.Claim {
	lessons := s.Asked(look.Lessons)
	var all []probe.Claim
	for _, id := range s.Claims {
		for _, c := range e.claims {
			decidable := c.HasTraffic()
			if look.NoPackets != "" {
				decidable = c.HasConfiguration(lessons)
			}
			if c.ID == id && c.When(lessons) && decidable {
				all = append(all, c)
			}
		}
	}
	return all
}

// met tells whether the lab is in the state that a station asks for, and no command is still changing it. The caller
// holds the mutex.
func (e *Engine) met(s Station) bool { return e.doing == "" && s.Met(e.look, e.progress.done) }

// proven tells whether the last check proves every claim of the station. A fault whose symptom was not seen yet is not
// fixed. The caller holds the mutex.
func (e *Engine) proven() bool {
	return e.report != nil && e.report.Proven() && (e.fault() == nil || e.fault().Seen)
}

// finish notes that the station is done. The caller holds the mutex.
func (e *Engine) finish() {
	if e.notes().Done.IsZero() {
		if broken := e.fault(); broken != nil && !slices.Contains(e.progress.Fixed, broken.Number) {
			e.progress.Fixed = append(e.progress.Fixed, broken.Number)
		}
		e.noted(func(n *Notes) { n.Done = time.Now().UTC() })
	}
}

// noted changes the notes, and shows an error. The caller holds the mutex.
func (e *Engine) noted(change func(*Notes)) { e.show(e.note(change)) }

// show makes an error the trouble that is shown. The caller holds the mutex.
func (e *Engine) show(err error) {
	if err != nil {
		e.trouble = err.Error()
	}
}

// move goes to another station. The caller holds the mutex.
func (e *Engine) move(to int) {
	e.at, e.report, e.output, e.failed, e.told, e.repeats = to, nil, nil, "", "", 0
	e.show(e.came())
}

// set changes what View returns, and tells those who wait for it.
func (e *Engine) set(change func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change()
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *Engine) fail(err error) {
	if err != nil {
		e.set(func() { e.show(err) })
	}
}

// Changed is closed when View returns something else than now.
func (e *Engine) Changed() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.changed
}

// View gives what there is to show.
func (e *Engine) View() View {
	e.mu.Lock()
	defer e.mu.Unlock()
	s, notes := e.current(), e.notes()
	v := View{
		Station: s, Index: e.at, Count: len(e.stations), Look: e.look, Notes: notes, Report: e.report,
		Checking: e.checking, Doing: e.doing, Output: slices.Clone(e.output), Failed: e.failed, Trouble: e.trouble,
		Told: e.told, Changes: e.changes, Checks: e.checks, Broken: e.fault() != nil,
		Fixed: len(e.progress.Fixed), Faults: len(sabotage.All()),
	}
	for _, c := range e.counted(s, e.look) {
		v.Items = append(v.Items, item(c, e.report))
	}
	v.Done = e.proven() || len(v.Items) == 0 && e.met(s)
	v.Finished = v.Done && !v.Broken && e.at == len(e.stations)-1
	if v.Finished && e.told == "" {
		v.Told = e.progress.summary(e.stations)
	}
	if v.Broken && !v.Done && v.Report != nil {
		v.Report = withoutCauses(*v.Report)
	}
	v.Hints = e.hints(s, notes.Hints)
	return v
}

// item is a claim with what the last check found.
func item(c probe.Claim, report *probe.Report) Item {
	i := Item{Title: c.Title}
	if report == nil {
		return i
	}
	for _, r := range report.Claims {
		if r.ID != c.ID {
			continue
		}
		i.Verdict = r.Verdict
		for _, check := range slices.Backward(r.Checks) {
			if i.Text == "" || check.Verdict == r.Verdict {
				i.Text = check.Text
			}
		}
	}
	return i
}

// maxHints is how many hints a station has: two of its own, and the likely cause that the lab found.
const maxHints = 3

func (e *Engine) hints(s Station, taken int) []string {
	all := slices.Clone(s.Hints)
	return append(all, likelyCause(e.report))[:min(taken, maxHints)]
}

// likelyCause is the lab's own reason why a claim does not hold.
func likelyCause(report *probe.Report) string {
	if report == nil {
		return "The lab names a likely cause after a check that does not prove every claim."
	}
	for _, r := range report.Claims {
		if len(r.Causes) > 0 {
			return r.Causes[0]
		}
	}
	if report.Proven() {
		return "Every claim is proven."
	}
	return "The lab knows no cause. Check once more: the last check was inconclusive."
}

// act does what the learner asked for. An error is part of the view until the learner asks for something else.
func (e *Engine) act(do func() error) error {
	e.set(func() { e.failed, e.told = "", "" })
	err := do()
	if err != nil {
		e.set(func() { e.failed = err.Error() })
	}
	return err
}

// Predict notes the learner's prediction.
func (e *Engine) Predict(letter string) error {
	return e.act(func() (err error) {
		e.set(func() {
			choices := e.current().Choices
			if slices.ContainsFunc(choices, func(c Choice) bool { return c.Letter == letter }) {
				err = e.note(func(n *Notes) { n.Prediction = letter })
				return
			}
			var letters []string
			for _, c := range choices {
				letters = append(letters, c.Letter)
			}
			err = fmt.Errorf("%q is not an answer; the answers are %s", letter, strings.Join(letters, ", "))
			if len(choices) == 0 {
				err = errors.New("this station has no question")
			}
		})
		return err
	})
}

// Hint takes the next hint. The third one is the lab's own, so it needs a check.
func (e *Engine) Hint() error {
	err := e.act(func() (err error) {
		e.set(func() {
			err = e.note(func(n *Notes) { n.Hints = min(n.Hints+1, maxHints) })
			if e.notes().Hints == maxHints && e.report == nil {
				e.asked = true
			}
		})
		return err
	})
	e.kick()
	return err
}

// Check asks for a check.
func (e *Engine) Check() error {
	err := e.act(func() (err error) {
		e.set(func() { e.asked = true })
		if v := e.View(); len(v.Items) > 0 && !v.Look.Lessons.On("apps") {
			err = fmt.Errorf("nothing can be checked before the applications run: %s sm:apps", e.command)
		}
		return err
	})
	e.kick()
	return err
}

// Next goes to the next station once this one is done.
func (e *Engine) Next() error {
	switch v := e.View(); {
	case v.Broken && v.Done:
		return e.act(e.leave)
	case !v.Done:
		return e.act(func() error {
			return errors.New("this station is not done yet; the list of the stations leads to any other")
		})
	default:
		return e.Go(v.Index + 1)
	}
}

// Go goes to the station of an index.
func (e *Engine) Go(to int) error {
	err := e.act(func() (err error) {
		e.set(func() {
			switch {
			case to < 0 || to >= len(e.stations):
				err = fmt.Errorf("there are stations 1 to %d", len(e.stations))
			case e.fault() != nil:
				err = errors.New("a fault is in the lab: fix it, or restore the lab, and then go to another station")
			case to != e.at:
				e.move(to)
			}
		})
		return err
	})
	e.kick()
	return err
}

// List gives every station with the learner's notes on it.
func (e *Engine) List() []Listed {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []Listed
	for i, s := range e.stations {
		all = append(all, Listed{i + 1, s.Title, e.progress.Stations[s.Name], i == e.at})
	}
	return all
}

// Listed is a station in a list.
type Listed struct {
	Number int
	Title  string
	Notes  Notes
	Here   bool
}

// errBusy refuses a second command while one runs.
var errBusy = errors.New("a command is running already; wait for its end")

// Do runs the commands of the station, and Undo the one that goes back.
func (e *Engine) Do(ctx context.Context) error {
	return e.act(func() error {
		v := e.View()
		if len(v.Do()) == 0 {
			return fmt.Errorf("station %q has no command that could be run for you", v.Title)
		}
		return e.run(ctx, append(e.recording(v), v.Do()...))
	})
}

// recording gives the commands that record the lessons which the station's lesson needs and which were made by hand. A
// target refuses to run without them.
func (e *Engine) recording(v View) []string {
	var commands []string
	needing, _ := lesson.Named(v.Lesson)
	for _, name := range needing.Needs {
		if slices.Contains(v.Look.ByHand, name) {
			commands = append(commands, e.command+" sm:"+name)
		}
	}
	return commands
}

// Undo goes back to the state before the station.
func (e *Engine) Undo(ctx context.Context) error {
	v := e.View()
	if v.Broken {
		return e.Restore(ctx)
	}
	return e.act(func() error {
		if v.Undo == "" {
			return fmt.Errorf("station %q has nothing to undo", v.Title)
		}
		return e.run(ctx, []string{v.Undo})
	})
}

func (e *Engine) run(ctx context.Context, commands []string) error {
	busy := false
	e.set(func() {
		if busy = e.doing != ""; !busy {
			e.doing, e.output = strings.Join(commands, "; "), nil
		}
	})
	if busy {
		return errBusy
	}
	var err error
	for _, command := range commands {
		e.set(func() { e.doing, e.output = command, append(e.output, "$ "+command) })
		err = e.lab.Type(ctx, command, func(line string) {
			e.set(func() {
				e.output = append(e.output, line)
				e.output = e.output[max(0, len(e.output)-outputLines):]
			})
		})
		if err != nil {
			break
		}
	}
	e.set(func() {
		e.doing = ""
		e.touch()
	})
	e.kick()
	return err
}

// Manual gives what a learner needs to do the station without its target.
func (e *Engine) Manual(ctx context.Context) (Manual, error) {
	v := e.View()
	if v.Lesson == "" {
		return Manual{}, nil
	}
	return e.lab.Manual(ctx, v.Lesson, v.Asked(v.Look.Lessons))
}
