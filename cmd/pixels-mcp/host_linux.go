package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"pixels/internal/app"
	"pixels/internal/program"
	"pixels/internal/setup"
	"pixels/policy"
	"pixels/policy/ledger"
)

// ofThisMachine are the commands that work on the machine that they are called on.
func (a *cli) ofThisMachine() (decide, host []*cobra.Command) {
	return []*cobra.Command{a.policyCommand(), a.approvalCommand(), a.webCommand(), a.tokenCommand()},
		[]*cobra.Command{a.setupCommand(), a.doctorCommand(), a.cleanCommand(), a.serveCommand(), a.demoCommand(), gatewayCommand()}
}

func (a *cli) setupOptions() setup.Options {
	i := a.config.Incus
	return setup.Options{Out: a.out, Incus: a.config.IncusConfig(), PoolSize: int64(i.PoolSize), PoolDriver: i.PoolDriver}
}

func (a *cli) setupCommand() *cobra.Command {
	var systemd, service, remove bool
	c := &cobra.Command{
		Use:   "setup",
		Short: "Install and start all that sandboxes need",
		Long: "setup installs Incus from the distribution's packages, starts it, makes a storage pool, a network, a\n" +
			"base image and the gateway, and tries whether that holds. It can be run again at any time: what is there is\n" +
			"left alone, what is broken is mended.\n" +
			"Without root it uses an Incus that you may reach, and says what root would add.\n" +
			"With --service it also installs the server under a system user of its own, which alone reaches Incus, the policy\n" +
			"and the records: agents under your own user can then do nothing but call tools.",
		Example: "  sudo " + program.Name + " setup\n  " + program.Name + " setup --incus-pool-size 50GiB",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := setup.Service{Out: a.out, Member: os.Getenv("SUDO_USER")}
			if remove {
				if !service {
					return usageError{errors.New("--remove goes with --service; `" + program.Name + " clean --all` removes what setup made otherwise")}
				}
				return setup.RemoveService(cmd.Context(), s, false)
			}
			o := a.setupOptions()
			o.Systemd = systemd
			o.Program, _ = os.Executable() // without it there is no short name
			if err := setup.Run(cmd.Context(), o); err != nil {
				return fmt.Errorf("setup: %w", err)
			}
			if err := a.writePolicy(); err != nil {
				return fmt.Errorf("setup: %w", err)
			}
			if service {
				if err := setup.InstallService(cmd.Context(), s, policy.Default); err != nil {
					return fmt.Errorf("setup: the service: %w", err)
				}
			}
			fmt.Fprintln(a.out, "ready")
			return nil
		},
	}
	c.Flags().BoolVar(&service, "service", false, "install the server under a system user of its own")
	c.Flags().BoolVar(&remove, "remove", false, "with --service: end it and remove its program; user, policy and records stay")
	c.Flags().BoolVar(&systemd, "systemd", false, "make the image with systemd too (the base image's name with -systemd), for sandboxes with services")
	return c
}

func (a *cli) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check each part that sandboxes need, and say how to mend it",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.sayWhere()
			if !setup.Doctor(cmd.Context(), a.setupOptions()) {
				return exitCode(exitFailed)
			}
			return nil
		},
	}
}

func (a *cli) cleanCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Remove all sandboxes of all owners; with --all the pool, network and image too",
		Long: "clean removes what carries our keys in the configured Incus project, and nothing else: every sandbox of\n" +
			"every owner with its checkpoints, and with --all what setup made. Incus itself stays.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := setup.Clean(cmd.Context(), a.setupOptions(), all); err != nil {
				return fmt.Errorf("clean: %w", err)
			}
			return a.withdrawAll()
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "remove the pool, the network and the image as well")
	return cmd
}

// withdrawAll ends the questions of sandboxes that are gone: all are.
func (a *cli) withdrawAll() error {
	store, err := app.OpenLedger(a.warn)
	if err != nil {
		return nil // then nothing is asked
	}
	defer store.Close()
	open, err := store.Requests("", 0, ledger.RequestOpen)
	for _, r := range open {
		if _, e := store.Withdraw(r.ID, "its sandboxes were removed by clean"); !errors.Is(e, ledger.ErrDecided) {
			err = errors.Join(err, e)
		}
	}
	return err
}
