package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/egress"
	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox"
)

// made are the flags about what a new sandbox is to be.
type made struct {
	from, image, egress string
	cpu, memory, disk   string
	ttl                 string
	allow, labels, env  []string
}

// flags adds those that every way of making sandboxes has.
func (m *made) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.egress, "egress", "", "what it may reach: "+modes()+" (default as configured, or as its source)")
	f.StringSliceVar(&m.allow, "allow", nil, "`domain` that it may reach besides; may be given again")
	f.StringVar(&m.ttl, "ttl", "", "when it is destroyed by itself, as 30m, 2h or 7d from now (default as configured)")
	f.StringArrayVar(&m.labels, "label", nil, "label, as `KEY=VALUE`; may be given again")
}

// arguments are the flags as the arguments of a tool.
func (m *made) arguments() (map[string]any, error) {
	args := map[string]any{}
	if m.from != "" && m.image != "" {
		return nil, usageError{errors.New("give --from or --image, not both")}
	}
	if m.egress != "" {
		if err := egress.Mode(m.egress).Check(); err != nil {
			return nil, usageError{fmt.Errorf("--egress: %w", err)}
		}
	}
	for name, text := range map[string]string{"from": m.from, "image": m.image, "egress": m.egress, "ttl": m.ttl} {
		if text != "" {
			args[name] = text
		}
	}
	if len(m.allow) > 0 {
		args["allow"] = m.allow
	}
	if m.ttl != "" {
		if _, err := units.ParseDuration(m.ttl); err != nil {
			return nil, usageError{fmt.Errorf("--ttl: %w", err)}
		}
	}
	for flag, pairs := range map[string][]string{"label": m.labels, "env": m.env} {
		if len(pairs) == 0 {
			continue
		}
		values, err := keyValues(flag, pairs)
		if err != nil {
			return nil, err
		}
		args[map[string]string{"label": "labels", "env": "env"}[flag]] = values
	}
	return args, m.limits(args)
}

// limits reads sizes as they stand in arguments of tools. A bare number of memory is in MiB, as users of the first release write it.
func (m *made) limits(args map[string]any) error {
	if m.cpu != "" {
		n, err := strconv.Atoi(m.cpu)
		if err != nil || n < 1 {
			return usageError{fmt.Errorf("--cpu: %q is no number of cores: give 1 or more", m.cpu)}
		}
		args["cpu"] = n
	}
	for name, text := range map[string]string{"memory": m.memory, "disk": m.disk} {
		if text == "" {
			continue
		}
		if _, err := strconv.Atoi(text); err == nil {
			text += map[string]string{"memory": "MiB", "disk": "GiB"}[name]
		}
		if _, err := units.ParseSize(text); err != nil {
			return usageError{fmt.Errorf("--%s: %w", name, err)}
		}
		args[name] = text
	}
	return nil
}

// keyValues reads KEY=VALUE as flags give it.
func keyValues(flag string, pairs []string) (map[string]string, error) {
	out := map[string]string{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usageError{fmt.Errorf("--%s: %q is not KEY=VALUE", flag, pair)}
		}
		out[key] = value
	}
	return out, nil
}

func (a *cli) createCommand() *cobra.Command {
	var m made
	var s shown
	unprovisioned, console := false, false
	cmd := &cobra.Command{
		Use:   "create NAME...",
		Short: "Make sandboxes and start them",
		Long: "create makes one sandbox a name, side by side, and returns when they are ready. They are made of the base image, of\n" +
			"another one, or with --from of a checkpoint (NAME:LABEL) or of a sandbox as it is now (NAME).",
		Example: "  " + program.Name + " create base --egress agent\n  " + program.Name + " create a b c --from base:ready",
		Args:    names("the name of a sandbox, or several"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				if err := sandbox.CheckName(name); err != nil {
					return err
				}
			}
			arguments, err := m.arguments()
			if err != nil {
				return err
			}
			if unprovisioned {
				a.warn(errors.New("--no-provision changes nothing: a sandbox is as its image is, and nothing is installed into it"))
			}
			if console && (len(args) > 1 || s.json || s.quiet) {
				return usageError{errors.New("--console is for one sandbox, and goes with neither --json nor --quiet")}
			}
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				if err := v.create(ctx, args, arguments, s); err != nil || !console {
					return err
				}
				return v.console(ctx, args[0], consoleFlags{session: "console"})
			})
		},
	}
	m.flags(cmd)
	completeFlag(cmd, "egress", a.someMode)
	s.flags(cmd, "names")
	f := cmd.Flags()
	f.StringVar(&m.from, "from", "", "checkpoint to start from, as `NAME:LABEL`, or NAME for a sandbox as it is now")
	f.StringVar(&m.image, "image", "", "image to start from (default as configured)")
	f.StringVar(&m.cpu, "cpu", "", "cores (default as configured)")
	f.StringVar(&m.memory, "memory", "", "memory, as 4GiB, or in MiB (default as configured)")
	f.StringVar(&m.disk, "disk", "", "disk, as 20GiB (default as configured)")
	f.StringArrayVarP(&m.env, "env", "e", nil, "variable of every command run in it, as `KEY=VALUE`; may be given again")
	f.BoolVar(&console, "console", false, "open a console in it when it is ready")
	f.BoolVar(&unprovisioned, "no-provision", false, "")
	_ = f.MarkHidden("no-provision") // of the first release
	completeFlag(cmd, "from", a.someSource)
	return cmd
}

// create makes sandboxes side by side, and says of each what became of it.
func (v *verbs) create(ctx context.Context, names []string, arguments map[string]any, s shown) error {
	boxes := make([]view.Sandbox, len(names))
	errs := v.sideBySide(names, "creating", func(i int) error {
		return v.call(ctx, policy.VerbCreateSandbox, with(arguments, "name", names[i]), &boxes[i])
	}, func(i int, took time.Duration) { v.sayMade(boxes[i], took, s, len(names) == 1) })
	if s.json {
		if err := v.printWhole(boxes, errs); err != nil {
			return err
		}
	}
	if err := outcome(ctx, names, errs, "not made"); err != nil {
		return err
	}
	var asked []string
	for _, b := range boxes {
		asked = append(asked, b.Requests...)
	}
	return v.asked(asked)
}

// asked says which requests a human must decide, and has the exit code for that; nil where there is none.
func (v *verbs) asked(ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	fmt.Fprintf(v.err, "%s: a human must decide about %s; `%s wait %s` waits for that\n", program.Name, joined(ids), program.Name, strings.Join(ids, " "))
	return exitCode(exitAsked)
}

// sayMade says that a sandbox was made, and how to go on where it is the only one.
func (v *verbs) sayMade(box view.Sandbox, took time.Duration, s shown, only bool) {
	switch {
	case s.json:
	case s.quiet:
		fmt.Fprintln(v.out, box.Name)
	case only:
		fmt.Fprintf(v.out, "Created %s in %s\n", box.Name, took)
		v.printFields(fields(box))
	default:
		fmt.Fprintf(v.out, "Created %s in %s%s\n", box.Name, took, at(box))
	}
}

// with is a copy of arguments with one more.
func with(arguments map[string]any, key string, value any) map[string]any {
	out := map[string]any{key: value}
	for k, v := range arguments {
		out[k] = v
	}
	return out
}

// at ends a sentence about a sandbox with its address.
func at(s view.Sandbox) string {
	if s.Address == "" {
		return ""
	}
	return ", at " + s.Address
}

// fields are what people are shown of a sandbox.
func fields(s view.Sandbox) [][2]string {
	return [][2]string{
		{"Address", s.Address}, {"Egress", string(s.Egress)}, {"From", s.From}, {"Until", until(s)}, {"Labels", pairs(s.Labels)}, {"Asked for", joined(s.Requests)},
		{"Console", fmt.Sprintf("%s console %s", program.Name, s.Name)}, {"Status", fmt.Sprintf("%s status %s", program.Name, s.Name)},
	}
}
