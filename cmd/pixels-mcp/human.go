package main

import (
	"errors"
	"fmt"

	"pixels/internal/app"
	"pixels/internal/program"
	"pixels/sandbox/manager"
)

// notBesideService refuses what the service of this machine alone can do: it has the policy and the records.
func (a *cli) notBesideService() error {
	if a.server.url != "" && !a.direct {
		return fmt.Errorf("a token decides nothing: use the page of %s, or run this on its machine", a.server.url)
	}
	if a.direct || !serviceOf(a.servicePath) {
		return nil
	}
	return fmt.Errorf("this machine has a service, which keeps requests and records: use its page, or run this as `sudo -u pixels -H "+program.Name+" ...` (see `ls -l %s`)", a.servicePath)
}

// warn says something on stderr.
func (a *cli) warn(err error) { fmt.Fprintf(a.err, program.Name+": %v\n", err) }

// withApp calls do with what a process works with.
func (a *cli) withApp(do func(*app.App) error) error {
	opened, err := app.Open(a.config, a.policyPath(), func(err error) {
		if notice := manager.Notice(""); errors.As(err, &notice) {
			a.warnOnce(notice)
		} else {
			a.warn(err)
		}
	})
	if err != nil {
		return err
	}
	defer opened.Close()
	return do(opened)
}

// withHuman calls do with the human at the terminal.
func (a *cli) withHuman(do func(*manager.Human) error) error {
	if err := a.notBesideService(); err != nil {
		return err
	}
	return a.withApp(func(opened *app.App) error { return do(opened.Door.Human("cli")) })
}
