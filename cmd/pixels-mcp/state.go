package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"pixels/internal/fault"
	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
)

// stateCommand is a command that puts sandboxes into a state. did is what it says of each.
func (a *cli) stateCommand(use, short, doing, did string, state sandbox.State) *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use: use + " NAME...", Short: short,
		Args: names("the name of a sandbox, or several"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				boxes := make([]view.Sandbox, len(args))
				errs := v.sideBySide(args, doing, func(i int) error {
					return v.call(ctx, policy.VerbSetSandboxState, map[string]any{"name": args[i], "state": state}, &boxes[i])
				}, func(i int, took time.Duration) {
					switch {
					case s.quiet:
						fmt.Fprintln(v.out, args[i])
					case !s.json:
						fmt.Fprintf(v.out, "%s %s in %s%s\n", did, args[i], took, at(boxes[i]))
					}
				})
				if s.json {
					if err := v.printWhole(boxes, errs); err != nil {
						return err
					}
				}
				return outcome(ctx, args, errs, "not "+did)
			})
		},
	}
	s.flags(cmd, "names")
	return cmd
}

// sideBySide calls do for each of some names, several at once, and then done for those that it succeeded for.
func (v *verbs) sideBySide(names []string, doing string, do func(i int) error, done func(i int, took time.Duration)) []error {
	const atOnce = 8
	errs := make([]error, len(names))
	p := v.progress(doing + " " + joined(names))
	defer p.end()
	var work errgroup.Group
	work.SetLimit(atOnce)
	for i := range names {
		work.Go(func() error {
			if errs[i] = do(i); errs[i] == nil {
				p.say(func() { done(i, p.took()) })
			}
			return nil
		})
	}
	_ = work.Wait() // no error comes that way
	return errs
}

// printWhole prints those of some sandboxes that there are no errors about, as JSON.
func (v *verbs) printWhole(boxes []view.Sandbox, errs []error) error {
	whole := []view.Sandbox{}
	for i := range boxes {
		if errs[i] == nil {
			whole = append(whole, boxes[i])
		}
	}
	return v.printJSON(whole)
}

func (a *cli) extendCommand() *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use:     "extend NAME TIME",
		Short:   "Set when a sandbox is destroyed by itself, from now; it may be sooner than before",
		Example: "  " + program.Name + " extend base 7d",
		Args:    exactly(2, "the name of a sandbox and a time, as 30m, 2h or 7d"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := units.ParseDuration(args[1]); err != nil {
				return usageError{err}
			}
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				var box view.Sandbox
				if err := v.call(ctx, policy.VerbExtendSandbox, map[string]any{"name": args[0], "ttl": args[1]}, &box); err != nil {
					return err
				}
				if s.json {
					return v.printJSON(box)
				}
				fmt.Fprintf(v.out, "%s lives until %s (%s)\n", box.Name, view.Moment(box.ExpiresAt), view.Left(box.ExpiresAt))
				return nil
			})
		},
	}
	s.flags(cmd, "")
	return cmd
}

func (a *cli) renameCommand() *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use:   "rename NAME NEW-NAME",
		Short: "Give a sandbox another name, and its host name with it",
		Args:  exactly(2, "the name of a sandbox and its new name"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				var box view.Sandbox
				if err := v.call(ctx, policy.VerbRenameSandbox, map[string]any{"name": args[0], "to": args[1]}, &box); err != nil {
					return err
				}
				if s.json {
					return v.printJSON(box)
				}
				fmt.Fprintf(v.out, "%s is called %s now\n", args[0], box.Name)
				return nil
			})
		},
	}
	s.flags(cmd, "")
	return cmd
}

func (a *cli) resizeCommand() *cobra.Command {
	var m made
	var s shown
	cmd := &cobra.Command{
		Use:     "resize NAME",
		Short:   "Change how many cores, how much memory and disk a sandbox has, while it runs",
		Example: "  " + program.Name + " resize work --cpu 4 --memory 8GiB",
		Args:    exactly(1, "the name of a sandbox"),
		RunE: func(cmd *cobra.Command, args []string) error {
			arguments := map[string]any{"name": args[0]}
			if err := m.limits(arguments); err != nil {
				return err
			}
			if len(arguments) == 1 {
				return usageError{errors.New("nothing to change: give --cpu, --memory or --disk")}
			}
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				var now struct {
					Name   string `json:"name"`
					CPU    int    `json:"cpu"`
					Memory string `json:"memory"`
					Disk   string `json:"disk"`
				}
				if err := v.call(ctx, policy.VerbResizeSandbox, arguments, &now); err != nil {
					return err
				}
				if s.json {
					return v.printJSON(now)
				}
				fmt.Fprintf(v.out, "%s has %s, %s of memory and %s of disk\n", now.Name, view.Count(now.CPU, "core", "cores"), orNone(now.Memory), orNone(now.Disk))
				return nil
			})
		},
	}
	s.flags(cmd, "")
	f := cmd.Flags()
	f.StringVar(&m.cpu, "cpu", "", "cores")
	f.StringVar(&m.memory, "memory", "", "memory, as 4GiB, or in MiB")
	f.StringVar(&m.disk, "disk", "", "disk, as 20GiB; it can't be less than what the sandbox holds")
	return cmd
}

func (a *cli) destroyCommand() *cobra.Command {
	force := false
	cmd := &cobra.Command{
		Use: "destroy NAME...", Aliases: []string{"rm"},
		Short: "End sandboxes and remove them with their files and checkpoints, for good",
		Long: "destroy ends sandboxes and removes them with their files and checkpoints, for good; what was cloned from them stays.\n" +
			"On a terminal it asks first. Elsewhere it wants --force, with which a name that is not there is no error.",
		Args: names("the name of a sandbox, or several"),
		RunE: func(cmd *cobra.Command, args []string) error {
			args = slices.Compact(slices.Sorted(slices.Values(args)))
			if _, ok := terminal(a.in); !ok && !force {
				return usageError{errors.New("nobody can be asked here: give --force to destroy without a question; nothing was destroyed")}
			}
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				if !force {
					yes, err := v.confirmDestroy(args)
					if err != nil || !yes {
						return errors.Join(err, errors.New("nothing was destroyed"))
					}
				}
				return v.destroy(ctx, args, force)
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask, and take no offence at a name that is not there")
	return cmd
}

func (v *verbs) confirmDestroy(names []string) (bool, error) {
	what := fmt.Sprintf("Destroy %s with all its files and checkpoints", names[0])
	if len(names) > 1 {
		what = fmt.Sprintf("Destroy %s with all their files and checkpoints", joined(names))
	}
	return v.confirm(what)
}

func (v *verbs) destroy(ctx context.Context, names []string, force bool) error {
	errs := v.sideBySide(names, "destroying", func(i int) error {
		var out struct {
			Missing []string                       `json:"missing"`
			Failed  []struct{ Name, Error string } `json:"failed"`
		}
		err := v.call(ctx, policy.VerbDestroySandbox, map[string]any{"names": names[i : i+1]}, &out)
		switch {
		case ctx.Err() != nil && (err != nil || len(out.Failed) > 0):
			return ctx.Err()
		case len(out.Failed) > 0:
			return fmt.Errorf("%s is still there: %s", names[i], out.Failed[0].Error)
		case err == nil && len(out.Missing) > 0:
			return fault.About(fault.NotFound, fault.Sandbox(names[i]), "")
		}
		return err
	}, func(i int, took time.Duration) { fmt.Fprintf(v.out, "Destroyed %s\n", names[i]) })
	if force {
		for i, err := range errs {
			if errors.Is(err, sandbox.ErrNotFound) {
				fmt.Fprintf(v.out, "%s was not there\n", names[i])
				errs[i] = nil
			}
		}
	}
	return outcome(ctx, names, errs, "maybe still there; destroy again")
}
