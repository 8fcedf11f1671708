package setup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"pixels/internal/program"
)

// Service is the server under a system user of its own, which alone reaches Incus, the policy and the records. Agents and
// people use it over a socket, each as who they are.
type Service struct {
	Out     io.Writer
	Name    string // of the user, its group, the unit and the folders; empty means pixels
	Program string // the program to install; empty means this one
	Page    string // address of the page; empty means 127.0.0.1:7467
	HTTP    string // address of MCP by HTTP; empty means 127.0.0.1:8765
	Member  string // a user who is to be let in; may be empty
}

// incusGroup is whose members Debian's incusd lets in.
const incusGroup = "incus-admin"

func (s Service) withDefaults() (Service, error) {
	if s.Name == "" {
		s.Name = "pixels"
	}
	if s.Page == "" {
		s.Page = "127.0.0.1:7467"
	}
	if s.HTTP == "" {
		s.HTTP = "127.0.0.1:8765"
	}
	if s.Out == nil {
		s.Out = io.Discard
	}
	if s.Program == "" {
		self, err := os.Executable()
		if err != nil {
			return s, err
		}
		s.Program = self
	}
	if os.Geteuid() != 0 {
		return s, errors.New("a service is installed by root: run this with sudo")
	}
	return s, nil
}

func (s Service) home() string   { return "/var/lib/" + s.Name }
func (s Service) socket() string { return "/run/" + s.Name + "/" + s.Name + ".sock" }
func (s Service) binary() string { return "/usr/local/lib/" + s.Name + "/pixels-mcp" }
func (s Service) unit() string   { return "/etc/systemd/system/" + s.Name + ".service" }
func (s Service) script() string { return "/usr/local/sbin/" + s.Name + "-service" }
func (s Service) policy() string { return s.home() + "/.config/pixels/policy.toml" }

// InstallService installs and starts the service, or brings what is there up to date. policy is written where there is none.
func InstallService(ctx context.Context, s Service, policy string) error {
	s, err := s.withDefaults()
	if err != nil {
		return err
	}
	r := &report{out: s.Out}
	for _, step := range []func(context.Context, *report) error{s.user, s.files(policy), s.install, s.start} {
		if err := step(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// user makes the system user, and lets it reach Incus.
func (s Service) user(ctx context.Context, r *report) error {
	start := time.Now()
	if _, err := user.LookupGroup(incusGroup); err != nil {
		return fmt.Errorf("the group %s, whose members may use Incus, is not there: set Incus up first: %w", incusGroup, err)
	}
	if _, err := user.Lookup(s.Name); err == nil {
		r.had(start, "user %s", s.Name)
	} else {
		group := []string{"--user-group"}
		if _, err := user.LookupGroup(s.Name); err == nil {
			group = []string{"--gid", s.Name}
		}
		if err := run(ctx, "useradd", append(group, "--system", "--home-dir", s.home(), "--create-home", "--shell", "/usr/sbin/nologin", s.Name)...); err != nil {
			return err
		}
		r.did(start, "user %s", s.Name)
	}
	if err := run(ctx, "usermod", "-aG", incusGroup, s.Name); err != nil {
		return err
	}
	if s.Member != "" && s.Member != "root" {
		if err := run(ctx, "usermod", "-aG", s.Name, s.Member); err != nil {
			return err
		}
		r.did(start, "user %s may use the service (after signing in anew)", s.Member)
	}
	return os.Chmod(s.home(), 0o700)
}

// files puts the program and the policy in their places.
func (s Service) files(policy string) func(context.Context, *report) error {
	return func(ctx context.Context, r *report) error {
		start := time.Now()
		if err := copyProgram(s.Program, s.binary()); err != nil {
			return fmt.Errorf("install the program: %w", err)
		}
		r.did(start, "program %s", s.binary())
		account, err := user.Lookup(s.Name)
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		for _, dir := range []string{s.home() + "/.config", filepath.Dir(s.policy())} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
			if err := os.Chown(dir, uid, gid); err != nil {
				return err
			}
		}
		if _, err := os.Stat(s.policy()); err == nil {
			r.had(start, "policy %s", s.policy())
			return nil
		}
		if err := errors.Join(os.WriteFile(s.policy(), []byte(policy), 0o600), os.Chown(s.policy(), uid, gid)); err != nil {
			return err
		}
		r.did(start, "policy %s: what agents may do, for you to edit", s.policy())
		return nil
	}
}

// copyProgram replaces a program as one: who runs it goes on.
func copyProgram(from, to string) error {
	if from == to {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// command is what the service runs.
func (s Service) command() string {
	return fmt.Sprintf("%s serve --socket %s --web %s --http %s", s.binary(), s.socket(), s.Page, s.HTTP)
}

// install writes the unit, and the script for where no systemd runs.
func (s Service) install(_ context.Context, r *report) error {
	start := time.Now()
	unit := fmt.Sprintf(`[Unit]
Description=Pixels, disposable machines for AI agents
After=incus.service network.target
Wants=incus.service

[Service]
User=%[1]s
Group=%[1]s
SupplementaryGroups=%[2]s
ExecStart=%[3]s
RuntimeDirectory=%[1]s
RuntimeDirectoryMode=0755
UMask=0077
Restart=on-failure
TimeoutStopSec=90
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=%[4]s
PrivateTmp=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
LockPersonality=yes

[Install]
WantedBy=multi-user.target
`, s.Name, incusGroup, s.command(), s.home())
	script := fmt.Sprintf(`#!/bin/sh
# Starts and stops the service %[1]s where no systemd runs.
set -eu
pidfile=/run/%[1]s/pid
case "${1:-}" in
start)
	install -d -m 0755 -o %[1]s -g %[1]s /run/%[1]s
	cd /
	HOME=%[3]s; export HOME
	unset XDG_CONFIG_HOME XDG_STATE_HOME
	umask 0077
	exec start-stop-daemon --start --oknodo --background --make-pidfile --pidfile "$pidfile" --output %[3]s/log --chuid %[1]s --exec %[4]s -- %[5]s
	;;
stop)
	exec start-stop-daemon --stop --oknodo --remove-pidfile --pidfile "$pidfile" --user %[1]s --retry TERM/90/KILL/5
	;;
status)
	exec start-stop-daemon --status --pidfile "$pidfile" --user %[1]s
	;;
*)
	echo "usage: $0 start|stop|status" >&2
	exit 2
	;;
esac
`, s.Name, incusGroup, s.home(), s.binary(), strings.TrimPrefix(s.command(), s.binary()+" "))
	if underSystemd() {
		if err := os.WriteFile(s.unit(), []byte(unit), 0o644); err != nil {
			return err
		}
		r.did(start, "unit %s", s.unit())
		return nil
	}
	if err := os.WriteFile(s.script(), []byte(script), 0o755); err != nil {
		return err
	}
	r.did(start, "script %s, for no systemd runs here: have it called at boot", s.script())
	return nil
}

// start starts the service anew, and waits until it answers.
func (s Service) start(ctx context.Context, r *report) error {
	start := time.Now()
	if err := s.stop(ctx); err != nil {
		return err
	}
	var err error
	if underSystemd() {
		err = errors.Join(run(ctx, "systemctl", "daemon-reload"), run(ctx, "systemctl", "enable", "--now", s.Name+".service"))
	} else {
		err = run(ctx, s.script(), "start")
	}
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		if info, err := os.Stat(s.socket()); err == nil && info.Mode().Type() == fs.ModeSocket {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the service was started and does not answer on %s: see `journalctl -u %s`, or %s/log", s.socket(), s.Name, s.home())
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
	r.did(start, "service %s: agents reach it by `"+program.Name+" serve`, or with a token at http://%s/mcp, you by http://%s/ (the token: `sudo -u %s -H %s web --token`)", s.Name, s.HTTP, s.Page, s.Name, s.binary())
	return nil
}

func (s Service) stop(ctx context.Context) error {
	if underSystemd() {
		if _, err := os.Stat(s.unit()); err != nil {
			return nil
		}
		return run(ctx, "systemctl", "stop", s.Name+".service")
	}
	if _, err := os.Stat(s.script()); err != nil {
		return nil
	}
	return run(ctx, s.script(), "stop")
}

// RemoveService ends the service and removes its program, unit and script. Its user stays with its policy and its records
// unless all is set.
func RemoveService(ctx context.Context, s Service, all bool) error {
	s, err := s.withDefaults()
	if err != nil {
		return err
	}
	if err := s.stop(ctx); err != nil {
		return err
	}
	if underSystemd() {
		_ = run(ctx, "systemctl", "disable", s.Name+".service") // it may not have been enabled
	}
	for _, path := range []string{s.unit(), s.script(), filepath.Dir(s.binary()), "/run/" + s.Name} {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	r := &report{out: s.Out}
	r.did(time.Now(), "service %s removed", s.Name)
	if _, err := user.Lookup(s.Name); err != nil || !all {
		return nil
	}
	if err := run(ctx, "userdel", s.Name); err != nil {
		return err
	}
	if _, err := user.LookupGroup(s.Name); err == nil { // it had other members
		if err := run(ctx, "groupdel", s.Name); err != nil {
			return err
		}
	}
	return os.RemoveAll(s.home())
}
