package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"pixels/egress"
)

// parse reads a policy that is good.
func parse(t testing.TB, text string) *Set {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func domains(t testing.TB, list ...string) (out []egress.Rule) {
	t.Helper()
	for _, text := range list {
		r, err := egress.ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func have(u Usage) func(string) (Usage, error) { return func(string) (Usage, error) { return u, nil } }

func TestVerdicts(t *testing.T) {
	const text = `
[quota]
sandboxes = 3
checkpoints = 2
cpu = 8
memory = "4GiB"
disk = "20GiB"
max_lease = "2d"
max_exec = "1h"
[create]
images = ["pixels/*", "debian"]
[exec]
root = false
[egress]
modes = ["none", "agent"]
allow = ["*.example.com", "db.example.org:5432"]
never = ["*.evil.test"]
[files]
host_folders = ["/srv/work"]
[tools]
off = ["write_file"]
[owners.ci.egress]
ask = false
modes = ["none", "allowlist", "unrestricted"]
[owners.ci.quota]
sandboxes = 1
[owners.ci.tools]
off = []
`
	s := parse(t, text)
	for _, c := range []struct {
		name     string
		call     Call
		decision Decision
		rule     string
		says     string
	}{
		{"nothing against it", Call{Verb: VerbListSandboxes}, Allow, "", ""},
		{"no such call", Call{Verb: "format_disk"}, Deny, "", "no call"},
		{"switched off", Call{Verb: VerbWriteFile}, Deny, "tools.off", "switched off"},
		{"on for this owner", Call{Verb: VerbWriteFile, Owner: "ci"}, Allow, "", ""},
		{"switched off is for agents", Call{Verb: VerbWriteFile, Human: true}, Allow, "", ""},
		{"one more", Call{Verb: VerbCreateSandbox, Needs: Needs{Sandboxes: 1}, Usage: have(Usage{Sandboxes: 2})}, Allow, "", ""},
		{"one too many", Call{Verb: VerbCreateSandbox, Needs: Needs{Sandboxes: 1}, Usage: have(Usage{Sandboxes: 3})}, Deny, "quota.sandboxes", "you have 3 of 3"},
		{"too many of an owner's own", Call{Verb: VerbCreateSandbox, Owner: "ci", Needs: Needs{Sandboxes: 1}, Usage: have(Usage{Sandboxes: 1})}, Deny, "owners.ci.quota.sandboxes", "1 of 1"},
		{"an owner's other keys are all's", Call{Verb: VerbCreateSandbox, Owner: "ci", Needs: Needs{CPU: 9}, Usage: have(Usage{})}, Deny, "quota.cpu", "cores"},
		{"a huge number", Call{Verb: VerbCreateSandbox, Needs: Needs{Memory: 1<<63 - 1}, Usage: have(Usage{Memory: 1 << 30})}, Deny, "quota.memory", "4GiB"},
		{"disk", Call{Verb: VerbCloneSandbox, Needs: Needs{Disk: 11 << 30}, Usage: have(Usage{Disk: 10 << 30})}, Deny, "quota.disk", "10GiB of 20GiB"},
		{"checkpoints", Call{Verb: VerbCreateCheckpoint, Needs: Needs{Checkpoints: 1}, Usage: have(Usage{Checkpoints: 2})}, Deny, "quota.checkpoints", "2 of 2"},
		{"more than the quota is there", Call{Verb: VerbDestroySandbox, Usage: have(Usage{Sandboxes: 9})}, Allow, "", ""},
		{"a lease", Call{Verb: VerbExtendSandbox, Needs: Needs{Lease: 49 * time.Hour}}, Deny, "quota.max_lease", "up to 2d"},
		{"a long command", Call{Verb: VerbExec, Needs: Needs{Exec: 2 * time.Hour}}, Deny, "quota.max_exec", "3600 seconds"},
		{"root", Call{Verb: VerbExec, Needs: Needs{Root: true}}, Deny, "exec.root", "root"},
		{"an image", Call{Verb: VerbCreateSandbox, Needs: Needs{Image: "debian"}}, Allow, "", ""},
		{"an image by pattern", Call{Verb: VerbCreateSandbox, Needs: Needs{Image: "pixels/base-systemd"}}, Allow, "", ""},
		{"another image", Call{Verb: VerbCreateSandbox, Needs: Needs{Image: "debian2"}}, Deny, "create.images", "pixels/*, debian"},
		{"the default image", Call{Verb: VerbCreateSandbox, Needs: Needs{Image: "mine", FreeImage: "mine"}}, Allow, "", ""},
		{"a mode", Call{Verb: VerbEgress, Needs: Needs{Mode: egress.Agent}}, Allow, "", ""},
		{"a mode too open", Call{Verb: VerbEgress, Needs: Needs{Mode: egress.Unrestricted}}, Deny, "egress.modes", "use one of: none, agent;"},
		{"a mode of an owner's own", Call{Verb: VerbEgress, Owner: "ci", Needs: Needs{Mode: egress.Allowlist}}, Allow, "", ""},
		{"a mode in which never is nothing", Call{Verb: VerbEgress, Owner: "ci", Needs: Needs{Mode: egress.Unrestricted}}, Deny, "egress.never", "*.evil.test"},
		{"a human's mode", Call{Verb: VerbEgress, Human: true, Needs: Needs{Mode: egress.Allowlist}}, Allow, "", ""},
		{"a human's mode in which never is nothing", Call{Verb: VerbEgress, Human: true, Needs: Needs{Mode: egress.Unrestricted}}, Deny, "egress.never", "*.evil.test"},
		{"a folder", Call{Verb: VerbCopyFiles, Needs: Needs{HostPath: "/srv/work/a/b"}}, Allow, "", ""},
		{"another folder", Call{Verb: VerbCopyFiles, Needs: Needs{HostPath: "/srv/work/../secret"}}, Deny, "files.host_folders", "/srv/work"},
		{"a folder of like name", Call{Verb: VerbCopyFiles, Needs: Needs{HostPath: "/srv/workshop"}}, Deny, "files.host_folders", "none of the folders"},
		{"granted unasked", Call{Verb: VerbAllowDomain, Needs: Needs{Domains: domains(t, "a.example.com", "db.example.org:5432")}}, Allow, "", ""},
		{"on another port", Call{Verb: VerbAllowDomain, Needs: Needs{Domains: domains(t, "db.example.org")}}, Ask, "egress.ask", "db.example.org"},
		{"more than is granted", Call{Verb: VerbAllowDomain, Needs: Needs{Domains: domains(t, "*.example.org")}}, Ask, "egress.ask", "human"},
		{"never", Call{Verb: VerbAllowDomain, Needs: Needs{Domains: domains(t, "a.evil.test")}}, Deny, "egress.never", "never granted"},
		{"never, within more", Call{Verb: VerbAllowDomain, Needs: Needs{Domains: domains(t, "*.a.evil.test")}}, Deny, "egress.never", "never granted"},
		{"never, on another port", Call{Verb: VerbAllowDomain, Needs: Needs{Domains: domains(t, "a.evil.test:22")}}, Deny, "egress.never", "never granted"},
		{"never, by a human neither", Call{Verb: VerbAllowDomain, Human: true, Needs: Needs{Domains: domains(t, "a.evil.test:443")}}, Deny, "egress.never", "never granted"},
		{"a human decides", Call{Verb: VerbAllowDomain, Human: true, Needs: Needs{Domains: domains(t, "example.net")}}, Allow, "", ""},
		{"nobody is asked", Call{Verb: VerbAllowDomain, Owner: "ci", Needs: Needs{Domains: domains(t, "example.net")}}, Deny, "owners.ci.egress.ask", "nobody is asked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := s.Vet(c.call)
			if err != nil || v.Decision != c.decision || v.Rule != c.rule || !strings.Contains(v.Reason+"; "+string(v.Hint.Action), c.says) || (v.Decision == Deny) != (v.Reason != "" && v.Decision != Ask) {
				t.Fatalf("got %+v, %v; want %s by %q saying %q", v, err, c.decision, c.rule, c.says)
			}
		})
	}
}

func TestOnlyWhatMustBeAskedIsAsked(t *testing.T) {
	s := parse(t, "[egress]\nallow = [\"*.example.com\"]")
	v, err := s.Vet(Call{Verb: VerbAllowDomain, Needs: Needs{Domains: domains(t, "a.example.com", "example.com", "b.example.org:22")}})
	if err != nil || v.Decision != Ask {
		t.Fatalf("%+v, %v", v, err)
	}
	if diff := cmp.Diff("[example.com b.example.org:22]", fmt.Sprint(v.Ask)); diff != "" {
		t.Errorf("what is asked for (-want +got):\n%s", diff)
	}
}

func TestWhatCantBeCountedIsNotAllowed(t *testing.T) {
	broken := errors.New("no backend")
	v, err := parse(t, "").Vet(Call{Verb: VerbCreateSandbox, Needs: Needs{Sandboxes: 1}, Usage: func(string) (Usage, error) { return Usage{}, broken }})
	if !errors.Is(err, broken) || v.Decision == Allow {
		t.Fatalf("%+v, %v", v, err)
	}
}

func TestBadFilesAreRefusedWithLineAndKey(t *testing.T) {
	for text, want := range map[string]string{
		"approval = \"none\"":                                                "line 1: approval:",
		"\n[quota]\nsandboxes = -1":                                          "line 3: quota.sandboxes:",
		"[quota]\nsandboxen = 1":                                             "line 2: unknown key quota.sandboxen, did you mean quota.sandboxes?",
		"[quota]\nmemory = \"lots\"":                                         "line 2: quota.memory:",
		"[quota]\nmax_lease = \"forever\"":                                   "line 2: quota.max_lease:",
		"[egress]\nmodes = [\"open\"]":                                       "line 2: egress.modes:",
		"[egress]\nallow = [\"https://example.com\"]":                        "line 2: egress.allow:",
		"[tools]\noff = [\"exce\"]":                                          "did you mean exec?",
		"[files]\nhost_folders = [\"/\"]":                                    "not the whole disk",
		"[owners.ci.quota]\nsandboxes = \"many\"":                            "line 2: owners.ci.quota.sandboxes",
		"[owners.ci.egress]\nnever = [\"a b\"]":                              "line 2:",
		"[egress]\nallow = [{ scope = \"asked\" }]":                          "wants a domain",
		"[egress]\nallow = [{ domain = \"example.com\", scope = \"once\" }]": "line 2:",
		"[egress]\nallow = [{ domain = \"example.com\", until = \"2h\" }]":   "line 2: unknown key",
		"[owners.ci]\napproval = \"passkey\"":                                "line 2: unknown key owners.ci.approval",
		"[quota\nsandboxes = 1":                                              "line 1:",
		"[quota]\nsandboxes = 1\n[quota]\ncheckpoints = 1":                   "line 3:",
		"[egress]\nask = true\nask = false":                                  "line 3:",
		"[egress]\nhold = 30":                                                "line 2: hold = 30:",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestTheFileIsReadAnewAndABadOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.toml")
	p, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var said []error
	p.Bad = func(err error) { said = append(said, err) }
	call := Call{Verb: VerbExec}
	expect := func(want Decision, saidSoFar int) {
		t.Helper()
		if v, err := p.Vet(call); err != nil || v.Decision != want || len(said) != saidSoFar {
			t.Fatalf("%+v, %v; said %v; want %s", v, err, said, want)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	expect(Allow, 0)
	write("[tools]\noff = [\"exec\"]")
	expect(Deny, 0)
	write("[tools]\noff = [\"exec\"")
	expect(Deny, 1)
	expect(Deny, 1) // said once
	if !strings.Contains(said[0].Error(), path) || !strings.Contains(said[0].Error(), "line 2") {
		t.Fatal(said[0])
	}
	if _, err := Open(path); err == nil {
		t.Fatal("a bad file was opened")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect(Deny, 2)
	write("")
	expect(Allow, 2)
	if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
		t.Fatal(err)
	}
	expect(Allow, 3)
}

func TestHoldCanBeSwitchedOff(t *testing.T) {
	if hold := parse(t, "[egress]\nhold = \"0s\"").For("x").Hold(); hold != 0 {
		t.Fatal(hold)
	}
	if hold := parse(t, "").For("x").Hold(); hold != 20*time.Second {
		t.Fatal(hold)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Default)
	f.Add("[owners.a.egress]\nallow = [\"x.test\"]")
	f.Add("[owners.\"\".quota]\ncpu = 1")
	f.Add("owners = 3")
	f.Add("[owners]\na = 1")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		for _, owner := range []string{"", "a"} {
			if v, err := s.Vet(Call{Verb: VerbAllowDomain, Owner: owner, Needs: Needs{Domains: domains(t, "nobody-wrote-this.test")}}); err != nil || v.Decision == Allow && !strings.Contains(text, "test") && !strings.Contains(text, "*") {
				t.Fatalf("granted unasked: %+v, %v", v, err)
			}
		}
	})
}

func BenchmarkVet(b *testing.B) {
	path := filepath.Join(b.TempDir(), "policy.toml")
	if err := os.WriteFile(path, []byte(Default), 0o600); err != nil {
		b.Fatal(err)
	}
	p, err := Open(path)
	if err != nil {
		b.Fatal(err)
	}
	call := Call{Verb: VerbCreateSandbox, Owner: "alice", Needs: Needs{Image: "pixels/base", Mode: egress.Agent, Sandboxes: 1, CPU: 2, Memory: 2 << 30, Disk: 10 << 30, Lease: time.Hour, Domains: domains(b, "a.example.com", "b.example.com")}, Usage: have(Usage{})}
	for b.Loop() {
		if _, err := p.Vet(call); err != nil {
			b.Fatal(err)
		}
	}
}
