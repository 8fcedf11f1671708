package sandboxtest

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pixels/sandbox"
)

func (s Subject) startRun(t *testing.T, id string, c sandbox.Command, timeout time.Duration) string {
	t.Helper()
	run, err := s.StartRun(t.Context(), id, c, timeout)
	if err != nil {
		t.Fatalf("start %v%s: %v", c.Argv, c.Shell, err)
	}
	return run
}

func (s Subject) lookAtRun(t *testing.T, id, run string, q sandbox.RunQuery) sandbox.Run {
	t.Helper()
	if q.Limit == 0 {
		q.Limit, q.Stdout, q.Stderr = 1000, -1, -1
	}
	got, err := s.LookAtRun(t.Context(), id, run, q)
	if err != nil {
		t.Fatalf("look at run %s: %v", run, err)
	}
	return got
}

func runsGoOn(t *testing.T, s Subject, box sandbox.Sandbox) {
	start := time.Now()
	run := s.startRun(t, box.ID, sandbox.Command{
		Shell: "id -un; echo $A$B; cat; echo err >&2; sleep 4; echo end; exit 7", Env: map[string]string{"B": "2"}, Stdin: strings.NewReader("given\n"),
	}, 0)
	if took := time.Since(start); took > 3500*time.Millisecond {
		t.Errorf("to start it took %s", took)
	}
	got := s.lookAtRun(t, box.ID, run, sandbox.RunQuery{})
	if got.State != sandbox.RunRunning || got.Started.IsZero() {
		t.Errorf("under way it is %+v", got)
	}
	got = s.lookAtRun(t, box.ID, run, sandbox.RunQuery{Wait: 20 * time.Second, Limit: 1000, Stdout: -1, Stderr: -1})
	if got.State != sandbox.RunEnded || got.ExitCode != 7 || string(got.Stdout.Head) != "pixel\n12\ngiven\nend\n" || string(got.Stderr.Head) != "err\n" ||
		got.Stdout.Size != 19 || got.TimedOut || got.Cancelled || got.Ended.Sub(got.Started) < 4*time.Second {
		t.Errorf("ended it is %+v, %q, %q", got, got.Stdout.Head, got.Stderr.Head)
	}
	later := s.startRun(t, box.ID, sandbox.Command{Argv: []string{"echo", "two words", "three"}}, 0)
	if all, err := s.Runs(t.Context(), box.ID); err != nil || len(all) < 2 || all[len(all)-1].ID != later || all[len(all)-2].ID != run ||
		all[len(all)-1].Command != "echo two words three" || !strings.HasPrefix(all[len(all)-2].Command, "id -un;") || all[len(all)-2].State != sandbox.RunEnded {
		t.Errorf("there are the runs %+v, %v", all, err)
	}
	for _, c := range []struct {
		q          sandbox.RunQuery
		head, tail string
	}{
		{sandbox.RunQuery{Limit: 4, Stdout: -1, Stderr: -1}, "pixe", "end\n"},
		{sandbox.RunQuery{Limit: 12, Stdout: -1, Stderr: -1}, "pixel\n12\ngiv", "en\nend\n"},
		{sandbox.RunQuery{Limit: 5, Stdout: 6}, "12\ngi", ""},
		{sandbox.RunQuery{Limit: 5, Stdout: 19}, "", ""},
		{sandbox.RunQuery{Limit: 5, Stdout: 1000}, "", ""},
	} {
		got := s.lookAtRun(t, box.ID, run, c.q)
		if string(got.Stdout.Head) != c.head || string(got.Stdout.Tail) != c.tail || got.Stdout.Size != 19 {
			t.Errorf("%+v gives %q and %q", c.q, got.Stdout.Head, got.Stdout.Tail)
		}
	}
	absent := s.startRun(t, box.ID, sandbox.Command{Argv: []string{"no-such-program"}}, 0)
	if got := s.lookAtRun(t, box.ID, absent, sandbox.RunQuery{Wait: 10 * time.Second, Limit: 1000, Stderr: -1}); got.State != sandbox.RunEnded || got.ExitCode != sandbox.ExitNotFound || !strings.Contains(string(got.Stderr.Head), "no-such-program") {
		t.Errorf("a missing program is %+v, %q", got, got.Stderr.Head)
	}
	if _, err := s.LookAtRun(t.Context(), box.ID, "absentabsent", sandbox.RunQuery{Limit: 1}); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
}

// runsAreFed checks that a command is given more to read while it runs, and signals.
func runsAreFed(t *testing.T, s Subject, box sandbox.Sandbox) {
	run := s.startRun(t, box.ID, sandbox.Command{Shell: "while read -r line; do echo got $line; done; echo end", Stdin: strings.NewReader("first\n"), KeepStdin: true}, 0)
	feed := func(f sandbox.Feed) {
		t.Helper()
		if err := s.Feed(t.Context(), box.ID, run, f); err != nil {
			t.Error(err)
		}
	}
	said := func(want string) {
		t.Helper()
		got := ""
		for end := time.Now().Add(10 * time.Second); got != want && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			got = string(s.lookAtRun(t, box.ID, run, sandbox.RunQuery{Limit: 1000, Stdout: -1}).Stdout.Head)
		}
		if got != want {
			t.Errorf("it says %q, want %q", got, want)
		}
	}
	said("got first\n")
	feed(sandbox.Feed{Stdin: "second\nthi"})
	feed(sandbox.Feed{Stdin: "rd\n"})
	said("got first\ngot second\ngot third\n")
	feed(sandbox.Feed{Stdin: "last\n", Signal: sandbox.EndOfInput})
	if got := s.lookAtRun(t, box.ID, run, sandbox.RunQuery{Wait: 10 * time.Second, Limit: 1000, Stdout: -1}); got.State != sandbox.RunEnded || got.ExitCode != 0 || !strings.HasSuffix(string(got.Stdout.Head), "got last\nend\n") {
		t.Errorf("at the end of its stdin it is %+v, %q", got, got.Stdout.Head)
	}
	whole := s.startRun(t, box.ID, sandbox.Command{Shell: "cat; sleep 600"}, 0)
	for _, c := range []struct {
		run  string
		f    sandbox.Feed
		want error
	}{
		{run, sandbox.Feed{Stdin: "late"}, sandbox.ErrState}, {run, sandbox.Feed{Signal: "INT"}, sandbox.ErrState}, {"absentabsent", sandbox.Feed{Signal: "INT"}, sandbox.ErrNotFound},
		{whole, sandbox.Feed{Stdin: "more"}, sandbox.ErrState}, {whole, sandbox.Feed{Signal: sandbox.EndOfInput}, sandbox.ErrState},
	} {
		if err := s.Feed(t.Context(), box.ID, c.run, c.f); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c.f, err)
		}
	}
	run = whole
	feed(sandbox.Feed{Signal: "WINCH"})
	if got := s.lookAtRun(t, box.ID, run, sandbox.RunQuery{Wait: 300 * time.Millisecond}); got.State != sandbox.RunRunning {
		t.Errorf("after a signal that ends nothing it is %+v", got)
	}
	feed(sandbox.Feed{Signal: "INT"})
	if got := s.lookAtRun(t, box.ID, run, sandbox.RunQuery{Wait: 10 * time.Second}); got.State != sandbox.RunEnded || got.ExitCode != 130 || got.Cancelled {
		t.Errorf("after a signal it is %+v", got)
	}
}

func runsEnd(t *testing.T, s Subject, box sandbox.Sandbox) {
	ticking := "(while true; do echo x >>ticks; sleep 0.1; done) & echo begun; sleep 600"
	still := func(what string) {
		t.Helper()
		ticks := s.output(t, box.ID, "cat ticks")
		if later := s.output(t, box.ID, "sleep 0.4; cat ticks"); later != ticks {
			t.Errorf("%s, a child goes on", what)
		}
	}
	run := s.startRun(t, box.ID, sandbox.Command{Shell: ticking}, time.Second)
	if got := s.lookAtRun(t, box.ID, run, sandbox.RunQuery{Wait: 20 * time.Second, Limit: 100, Stdout: -1}); got.State != sandbox.RunEnded || !got.TimedOut || got.ExitCode != 124 || string(got.Stdout.Head) != "begun\n" {
		t.Errorf("at its timeout it is %+v", got)
	}
	still("after the timeout")
	run = s.startRun(t, box.ID, sandbox.Command{Shell: ticking}, 0)
	s.output(t, box.ID, "sleep 0.3")
	if got := s.lookAtRun(t, box.ID, run, sandbox.RunQuery{Cancel: true, Limit: 100, Stdout: -1}); got.State != sandbox.RunEnded || !got.Cancelled || got.ExitCode != 143 || string(got.Stdout.Head) != "begun\n" {
		t.Errorf("cancelled it is %+v", got)
	}
	still("cancelled")
	if got := s.lookAtRun(t, box.ID, run, sandbox.RunQuery{Cancel: true, Limit: 1}); got.State != sandbox.RunEnded || !got.Cancelled {
		t.Errorf("cancelled twice it is %+v", got)
	}
	run = s.startRun(t, box.ID, sandbox.Command{Shell: ticking}, 0)
	s.set(t, box.ID, sandbox.Stopped)
	if _, err := s.StartRun(t.Context(), box.ID, sandbox.Command{Shell: "true"}, 0); !errors.Is(err, sandbox.ErrState) {
		t.Errorf("a run in a stopped sandbox: %v", err)
	}
	s.set(t, box.ID, sandbox.Running)
	if got := s.lookAtRun(t, box.ID, run, sandbox.RunQuery{Wait: 20 * time.Second}); got.State == sandbox.RunRunning || got.ExitCode == 0 || got.Cancelled || got.TimedOut {
		t.Errorf("after a stop it is %+v", got)
	}
	still("after a stop")
}
