package manager_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"pixels/egress"
	"pixels/internal/view"
	"pixels/sandbox"
	"pixels/sandbox/manager"
	"pixels/sandbox/sandboxtest"
)

const owner = "tester"

func newManager() *manager.Manager {
	return manager.New(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.None, Env: map[string]string{"TZ": "UTC"}})
}

// made returns a manager with the sandbox base and its checkpoint base:ready.
func made(t *testing.T) *manager.Manager {
	t.Helper()
	m := newManager()
	if _, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "base"}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateCheckpoint(t.Context(), manager.Agent(owner), "base", "ready", ""); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestBadRequestsSayWhatToDoAndChangeNothing(t *testing.T) {
	m := made(t)
	create := func(r manager.CreateRequest) func(context.Context) error {
		return func(ctx context.Context) error { _, err := m.Create(ctx, manager.Agent(owner), r); return err }
	}
	clone := func(r manager.CloneRequest) func(context.Context) error {
		return func(ctx context.Context) error { _, err := m.Clone(ctx, manager.Agent(owner), r); return err }
	}
	list := func(r manager.ListRequest) func(context.Context) error {
		return func(ctx context.Context) error { _, err := m.List(ctx, manager.Agent(owner), r); return err }
	}
	exec := func(r manager.ExecRequest) func(context.Context) error {
		return func(ctx context.Context) error { _, err := m.Exec(ctx, manager.Agent(owner), r); return err }
	}
	for name, c := range map[string]struct {
		do       func(context.Context) error
		is       error
		contains string
	}{
		"taken name":          {create(manager.CreateRequest{Name: "base"}), sandbox.ErrExists, "base"},
		"upper case":          {create(manager.CreateRequest{Name: "Base"}), sandbox.ErrInvalid, "lower-case"},
		"path as name":        {create(manager.CreateRequest{Name: "../x"}), sandbox.ErrInvalid, "lower-case"},
		"long name":           {create(manager.CreateRequest{Name: strings.Repeat("a", 300)}), sandbox.ErrInvalid, "(300 bytes)"},
		"unknown mode":        {create(manager.CreateRequest{Name: "x", Egress: "open"}), sandbox.ErrInvalid, "unrestricted"},
		"unknown image":       {create(manager.CreateRequest{Name: "x", Image: "pixels/absent"}), sandbox.ErrNotFound, "pixels/absent"},
		"from and image":      {create(manager.CreateRequest{Name: "x", From: "base:ready", Image: "y"}), sandbox.ErrInvalid, "one of them"},
		"from with no label":  {create(manager.CreateRequest{Name: "x", From: "base:"}), sandbox.ErrInvalid, "label"},
		"clone without label": {clone(manager.CloneRequest{Source: "base"}), sandbox.ErrInvalid, "NAME:LABEL"},
		"short lease":         {create(manager.CreateRequest{Name: "x", TTL: time.Second}), sandbox.ErrInvalid, "1m to 30d"},
		"long lease":          {create(manager.CreateRequest{Name: "x", TTL: 1000 * time.Hour}), sandbox.ErrInvalid, "1m to 30d"},
		"negative lease":      {clone(manager.CloneRequest{Source: "base:ready", TTL: -1}), sandbox.ErrInvalid, "1m to"},
		"list of no limit":    {list(manager.ListRequest{Limit: -1}), sandbox.ErrInvalid, "1 to 200"},
		"list of a bad name":  {list(manager.ListRequest{Name: "["}), sandbox.ErrInvalid, "pattern"},
		"list of no state":    {list(manager.ListRequest{State: "on"}), sandbox.ErrInvalid, "running"},
		"list from nowhere":   {list(manager.ListRequest{After: "A B"}), sandbox.ErrInvalid, "next_cursor"},
		"unknown state": {func(ctx context.Context) error {
			_, err := m.SetState(ctx, manager.Agent(owner), "base", "off")
			return err
		}, sandbox.ErrInvalid, "stopped"},
		"state of nothing": {func(ctx context.Context) error {
			_, err := m.SetState(ctx, manager.Agent(owner), "absent", sandbox.Stopped)
			return err
		}, sandbox.ErrNotFound, "there are: base"},
		"extend by nothing": {func(ctx context.Context) error { _, err := m.Extend(ctx, manager.Agent(owner), "base", -1); return err }, sandbox.ErrInvalid, "1m to"},
		"restore of nothing": {func(ctx context.Context) error {
			_, err := m.Restore(ctx, manager.Agent(owner), "base", "raedy")
			return err
		}, sandbox.ErrNotFound, "it has: ready"},
		"delete no checkpoint": {func(ctx context.Context) error { return m.DeleteCheckpoint(ctx, manager.Agent(owner), "base", "") }, sandbox.ErrInvalid, "label"},
		"unknown source":       {create(manager.CreateRequest{Name: "x", From: "bsae:ready"}), sandbox.ErrNotFound, "there are: base"},
		"unknown checkpoint":   {create(manager.CreateRequest{Name: "x", From: "base:raedy"}), sandbox.ErrNotFound, "it has: ready"},
		"bad variable":         {create(manager.CreateRequest{Name: "x", Env: map[string]string{"A-B": ""}}), sandbox.ErrInvalid, "A-B"},
		"variable of ours":     {create(manager.CreateRequest{Name: "x", Env: map[string]string{"PIXELS_CALL": "1"}}), sandbox.ErrInvalid, "PIXELS_"},
		"variable of ours too": {exec(manager.ExecRequest{Name: "base", Shell: "x", Env: map[string]string{"PIXELS_X": "1"}}), sandbox.ErrInvalid, "PIXELS_"},
		"long variable":        {create(manager.CreateRequest{Name: "x", Env: map[string]string{"A": strings.Repeat("a", 32<<10+1)}}), sandbox.ErrInvalid, "32768"},
		"long environment":     {create(manager.CreateRequest{Name: "x", Env: manyVariables(9)}), sandbox.ErrInvalid, "262144"},
		"bad label":            {create(manager.CreateRequest{Name: "x", Labels: map[string]string{"a b": ""}}), sandbox.ErrInvalid, "a b"},
		"negative cpu":         {create(manager.CreateRequest{Name: "x", Limits: sandbox.Limits{CPU: -1}}), sandbox.ErrInvalid, "cpu"},
		"little memory":        {create(manager.CreateRequest{Name: "x", Limits: sandbox.Limits{Memory: 1}}), sandbox.ErrInvalid, "128MiB"},
		"negative count":       {clone(manager.CloneRequest{Source: "base:ready", Count: -1}), sandbox.ErrInvalid, "1 to 64"},
		"huge count":           {clone(manager.CloneRequest{Source: "base:ready", Count: 65}), sandbox.ErrInvalid, "1 to 64"},
		"count against names":  {clone(manager.CloneRequest{Source: "base:ready", Count: 3, Names: []string{"a"}}), sandbox.ErrInvalid, "one of them"},
		"a name twice":         {clone(manager.CloneRequest{Source: "base:ready", Names: []string{"a", "a"}}), sandbox.ErrInvalid, "twice"},
		"clone of nothing":     {clone(manager.CloneRequest{Source: "base:raedy"}), sandbox.ErrNotFound, "it has: ready"},
		"clone with no work":   {clone(manager.CloneRequest{Source: "base:ready", Command: &manager.ExecRequest{}}), sandbox.ErrInvalid, "command"},
		"no command":           {exec(manager.ExecRequest{Name: "base", Shell: " "}), sandbox.ErrInvalid, "command"},
		"relative folder":      {exec(manager.ExecRequest{Name: "base", Shell: "x", Cwd: "x"}), sandbox.ErrInvalid, "absolute"},
		"long timeout":         {exec(manager.ExecRequest{Name: "base", Shell: "x", Timeout: time.Minute}), sandbox.ErrInvalid, "45s"},
		"exec in nothing":      {exec(manager.ExecRequest{Name: "absent", Shell: "x"}), sandbox.ErrNotFound, "there are: base"},
		"label taken": {func(ctx context.Context) error {
			_, err := m.CreateCheckpoint(ctx, manager.Agent(owner), "base", "ready", "")
			return err
		}, sandbox.ErrExists, "ready"},
		"label with colon": {func(ctx context.Context) error {
			_, err := m.CreateCheckpoint(ctx, manager.Agent(owner), "base", "a:b", "")
			return err
		}, sandbox.ErrInvalid, "a:b"},
		"checkpoints of none": {func(ctx context.Context) error {
			_, err := m.Checkpoints(ctx, manager.Agent(owner), "absent")
			return err
		}, sandbox.ErrNotFound, "there are: base"},
		"destroy nothing": {func(ctx context.Context) error { _, err := m.Destroy(ctx, manager.Agent(owner), nil); return err }, sandbox.ErrInvalid, "list_sandboxes"},
		"destroy a pattern": {func(ctx context.Context) error {
			_, err := m.Destroy(ctx, manager.Agent(owner), []string{"base", "*"})
			return err
		}, sandbox.ErrInvalid, "*"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			err := c.do(t.Context())
			if !errors.Is(err, c.is) || err == nil || !strings.Contains(view.Error(err, view.Agent), c.contains) {
				t.Errorf("got %v, want %v with %q", err, c.is, c.contains)
			}
			if page, _ := m.List(t.Context(), manager.Agent(owner), manager.ListRequest{}); len(page.Sandboxes) != 1 {
				t.Errorf("there are now %v", page)
			}
		})
	}
}

// manyVariables are n variables of 32 KiB.
func manyVariables(n int) map[string]string {
	env := map[string]string{}
	for i := range n {
		env[fmt.Sprintf("V%d", i)] = strings.Repeat("a", 32<<10)
	}
	return env
}

func TestClonesAreReportedEachByItself(t *testing.T) {
	m := made(t)
	got, err := m.Clone(t.Context(), manager.Agent(owner), manager.CloneRequest{
		Source: "base:ready", Names: []string{"a", "base", "c"}, Command: &manager.ExecRequest{Shell: "hostname; echo $TZ; exit 3"},
	})
	if err != nil || len(got) != 3 {
		t.Fatalf("%+v, %v", got, err)
	}
	for i, name := range []string{"a", "base", "c"} {
		r := got[i]
		if r.Name != name {
			t.Errorf("result %d is for %s", i, r.Name)
		}
		if name == "base" {
			if !errors.Is(r.Err, sandbox.ErrExists) || r.Exec != nil {
				t.Errorf("the one that is taken: %+v", r)
			}
			continue
		}
		want := manager.CloneResult{Name: name, Exec: &manager.ExecResult{ExitCode: 3, Stdout: name + "\nUTC\n"}}
		if diff := cmp.Diff(want, r, cmpopts.IgnoreFields(manager.CloneResult{}, "Sandbox"), cmpopts.IgnoreFields(manager.ExecResult{}, "Duration")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// meeting is a backend in which a command ends only once as many as are expected run at the same time.
type meeting struct {
	*sandboxtest.Memory
	expected *sync.WaitGroup
}

func (b meeting) Exec(ctx context.Context, id string, c sandbox.Command) (int, error) {
	b.expected.Done()
	met := make(chan struct{})
	go func() { b.expected.Wait(); close(met) }()
	select {
	case <-met:
		return 0, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func TestTheCommandsOfClonesRunAllAtOnce(t *testing.T) {
	b := meeting{sandboxtest.NewMemory(), &sync.WaitGroup{}}
	m := manager.New(b, manager.Defaults{Image: sandboxtest.Image, Egress: egress.None})
	if _, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "base"}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CreateCheckpoint(t.Context(), manager.Agent(owner), "base", "ready", ""); err != nil {
		t.Fatal(err)
	}
	b.expected.Add(manager.MaxClones)
	got, err := m.Clone(t.Context(), manager.Agent(owner), manager.CloneRequest{Source: "base:ready", Count: manager.MaxClones, Command: &manager.ExecRequest{Shell: "true"}})
	if err != nil || len(got) != manager.MaxClones {
		t.Fatalf("%d clones, %v", len(got), err)
	}
	for _, r := range got {
		if r.Err != nil || r.ExecErr != nil || r.Exec.TimedOut {
			t.Fatalf("%s waited for the others in vain: %+v", r.Name, r)
		}
	}
}

func TestNumberedNamesFillTheGaps(t *testing.T) {
	m := made(t)
	if _, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "base-2"}); err != nil {
		t.Fatal(err)
	}
	got, err := m.Clone(t.Context(), manager.Agent(owner), manager.CloneRequest{Source: "base:ready", Count: 3})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range got {
		names = append(names, r.Name)
	}
	if want := []string{"base-1", "base-3", "base-4"}; !slices.Equal(names, want) {
		t.Errorf("the clones are %v, want %v", names, want)
	}
	one, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{})
	if err != nil || one.Name != "sandbox-1" {
		t.Errorf("without a name it is %q, %v", one.Name, err)
	}
	for _, want := range []string{"checkpoint-1", "checkpoint-2"} {
		if c, err := m.CreateCheckpoint(t.Context(), manager.Agent(owner), "sandbox-1", "", ""); err != nil || c.Label != want {
			t.Errorf("without a label it is %q, %v", c.Label, err)
		}
	}
}

func TestATimeoutIsAResultWithWhatCameBefore(t *testing.T) {
	m := made(t)
	r, err := m.Exec(t.Context(), manager.Agent(owner), manager.ExecRequest{Name: "base", Shell: "echo begun; sleep 600", Timeout: 50 * time.Millisecond})
	if err != nil || !r.TimedOut || r.ExitCode != 124 || r.Stdout != "begun\n" {
		t.Errorf("%+v, %v", r, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if r, err := m.Exec(ctx, manager.Agent(owner), manager.ExecRequest{Name: "base", Shell: "sleep 600"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's own end is %+v, %v", r, err)
	}
}

func TestLongOutputKeepsBothEnds(t *testing.T) {
	m := made(t)
	r, err := m.Exec(t.Context(), manager.Agent(owner), manager.ExecRequest{
		Name: "base", Shell: `echo first; x=0123456789; for i in 1 2 3 4; do x=$x$x$x$x$x$x$x; done; echo "$x"; printf 'last\xff'`,
	})
	if err != nil || !r.Truncated || !strings.HasPrefix(r.Stdout, "first\n") || !strings.HasSuffix(r.Stdout, "last\uFFFD") || !strings.Contains(r.Stdout, "4022 bytes cut here") {
		t.Errorf("%d bytes, %+.200v, %v", len(r.Stdout), r, err)
	}
}

func TestDestroyIsIdempotent(t *testing.T) {
	m := made(t)
	for _, want := range []manager.Destroyed{{Gone: []string{"base"}, Missing: []string{"other"}}, {Missing: []string{"base", "other"}}} {
		d, err := m.Destroy(t.Context(), manager.Agent(owner), []string{"other", "base", "base"})
		if err != nil || !slices.Equal(d.Gone, want.Gone) || !slices.Equal(d.Missing, want.Missing) || len(d.Failed) != 0 {
			t.Errorf("%+v, %v; want %+v", d, err, want)
		}
	}
}

func TestAListIsFilteredAndPaged(t *testing.T) {
	m := made(t)
	for name, labels := range map[string]map[string]string{"work-1": {"a": "1", "b": "1"}, "work-2": {"a": "1"}, "work-3": {"a": "2"}, "x": nil} {
		if _, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: name, Labels: labels}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.SetState(t.Context(), manager.Agent(owner), "work-2", sandbox.Stopped); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		r    manager.ListRequest
		want []string
		next string
	}{
		{manager.ListRequest{}, []string{"base", "work-1", "work-2", "work-3", "x"}, ""},
		{manager.ListRequest{Name: "work-*"}, []string{"work-1", "work-2", "work-3"}, ""},
		{manager.ListRequest{Name: "x"}, []string{"x"}, ""},
		{manager.ListRequest{Labels: map[string]string{"a": "1"}}, []string{"work-1", "work-2"}, ""},
		{manager.ListRequest{Labels: map[string]string{"a": "1", "b": "1"}}, []string{"work-1"}, ""},
		{manager.ListRequest{State: sandbox.Stopped}, []string{"work-2"}, ""},
		{manager.ListRequest{Name: "work-*", Limit: 2}, []string{"work-1", "work-2"}, "work-2"},
		{manager.ListRequest{Name: "work-*", Limit: 2, After: "work-2"}, []string{"work-3"}, ""},
		{manager.ListRequest{Limit: 5}, []string{"base", "work-1", "work-2", "work-3", "x"}, ""},
		{manager.ListRequest{Name: "none"}, nil, ""},
	} {
		page, err := m.List(t.Context(), manager.Agent(owner), c.r)
		var names []string
		for _, s := range page.Sandboxes {
			names = append(names, s.Name)
		}
		if err != nil || !slices.Equal(names, c.want) || page.Next != c.next {
			t.Errorf("%+v gives %v, next %q, %v; want %v, next %q", c.r, names, page.Next, err, c.want, c.next)
		}
	}
}

func TestLeasesEndByThemselves(t *testing.T) {
	b := sandboxtest.NewMemory()
	m := manager.New(b, manager.Defaults{Image: sandboxtest.Image, Egress: egress.None, Lease: 2 * time.Hour, MaxLease: 3 * time.Hour})
	box, err := m.Create(t.Context(), manager.Agent(owner), manager.CreateRequest{Name: "box"})
	if err != nil || time.Until(box.ExpiresAt) > 2*time.Hour || time.Until(box.ExpiresAt) < 2*time.Hour-time.Minute {
		t.Fatalf("made with the default lease: %+v, %v", box, err)
	}
	if box, err = m.Extend(t.Context(), manager.Agent(owner), "box", 3*time.Hour); err != nil || time.Until(box.ExpiresAt) < 3*time.Hour-time.Minute {
		t.Errorf("extended: %+v, %v", box, err)
	}
	if err := b.SetExpiry(t.Context(), box.ID, time.Now().Add(30*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var gone []sandbox.Sandbox
	m.KeepSwept(ctx, 10*time.Millisecond, func(swept sandbox.Swept, err error) {
		if err != nil {
			t.Error(err)
		}
		gone = append(gone, swept.Destroyed...)
		cancel()
	})
	if page, err := m.List(t.Context(), manager.Agent(owner), manager.ListRequest{}); len(gone) != 1 || gone[0].Name != "box" || err != nil || len(page.Sandboxes) != 0 {
		t.Errorf("gone are %v; left are %+v, %v", gone, page, err)
	}
}

func TestWhatIsAllowedAndDenied(t *testing.T) {
	presets, err := egress.Shipped(nil)
	if err != nil {
		t.Fatal(err)
	}
	m, door := manager.NewWithDoor(sandboxtest.NewMemory(), manager.Defaults{Image: sandboxtest.Image, Egress: egress.Agent, Presets: presets, Policy: sandboxtest.Policy(t, "[egress]\nallow = [\"a.example\", \"b.example\", \"c.example\", \"x.example\"]")})
	if _, err := m.Create(t.Context(), manager.Agent("me"), manager.CreateRequest{Name: "base", Allow: []string{"a.example"}}); err != nil {
		t.Fatal(err)
	}
	allowed := func(name, domain string) bool {
		e, err := m.Egress(t.Context(), manager.Agent("me"), name)
		if err != nil {
			t.Fatal(err)
		}
		_, ok := egress.Policy{Mode: e.Mode, Rules: e.Rules}.Allows(domain, 443)
		return ok
	}
	if !allowed("base", "a.example") || !allowed("base", "api.openai.com") || allowed("base", "b.example") {
		t.Error("not what the mode and allow say")
	}
	if _, err := m.Allow(t.Context(), manager.Agent("me"), manager.AllowRequest{Name: "base", Domains: []string{"b.example"}}); err != nil || !allowed("base", "b.example") {
		t.Errorf("allowed, and still denied: %v", err)
	}
	if _, err := m.Deny(t.Context(), manager.Agent("me"), "base", []string{"a.example", "api.openai.com"}); err != nil || allowed("base", "a.example") || allowed("base", "api.openai.com") {
		t.Errorf("denied, and still allowed: %v", err)
	}
	if _, err := m.CreateCheckpoint(t.Context(), manager.Agent("me"), "base", "ready", ""); err != nil {
		t.Fatal(err)
	}
	clones, err := m.Clone(t.Context(), manager.Agent("me"), manager.CloneRequest{Source: "base:ready", Names: []string{"copy"}, Allow: []string{"c.example"}})
	if err != nil || clones[0].Err != nil {
		t.Fatal(err, clones[0].Err)
	}
	if !allowed("copy", "b.example") || !allowed("copy", "c.example") || allowed("copy", "a.example") || allowed("copy", "api.openai.com") || allowed("base", "c.example") {
		t.Error("a clone has its source's rules, and its own")
	}
	if _, err := m.Allow(t.Context(), manager.Agent("other"), manager.AllowRequest{Name: "base", Domains: []string{"x.example"}}); !errors.Is(err, sandbox.ErrNotFound) {
		t.Errorf("of another owner: %v", err)
	}
	if _, err := m.SetEgress(t.Context(), manager.Agent("me"), "base", egress.None); err != nil || allowed("base", "b.example") {
		t.Errorf("mode none: %v", err)
	}
	if _, err := m.Allow(t.Context(), manager.Agent("me"), manager.AllowRequest{Name: "base", Domains: []string{"x.example"}}); !errors.Is(err, sandbox.ErrState) {
		t.Errorf("to allow in mode none: %v", err)
	}
	for _, bad := range []string{"com", "*.com", "a.*.example", "http://a.example", "a.example:0", "a.example:70000", "10.0.0.1", "10.0.0.0/8", "", "a b"} {
		if _, err := m.Allow(t.Context(), manager.Agent("me"), manager.AllowRequest{Name: "copy", Domains: []string{bad}}); !errors.Is(err, sandbox.ErrInvalid) {
			t.Errorf("%q is allowed: %v", bad, err)
		}
	}
	if _, err := m.Allow(t.Context(), door.Human("cli").As("me"), manager.AllowRequest{Name: "copy", Domains: []string{"10.0.0.0/8:5432"}, Addresses: true}); err != nil {
		t.Errorf("a range by a human: %v", err)
	}
}
