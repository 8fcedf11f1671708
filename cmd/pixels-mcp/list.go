package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox/manager"
)

func (a *cli) listCommand() *cobra.Command {
	var s shown
	var labels []string
	var state string
	cmd := &cobra.Command{
		Use: "list [PATTERN]", Aliases: []string{"ls"},
		Short:   "List sandboxes",
		Example: "  " + program.Name + " list 'work-*' --state running\n  " + program.Name + " list -q | xargs " + program.Name + " destroy --force",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			arguments := map[string]any{}
			if len(args) > 0 {
				arguments["name"] = args[0]
			}
			if state != "" {
				arguments["state"] = state
			}
			if len(labels) > 0 {
				values, err := keyValues("label", labels)
				if err != nil {
					return err
				}
				arguments["labels"] = values
			}
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				boxes, err := v.list(ctx, arguments)
				if err != nil {
					return err
				}
				return v.printList(boxes, s, len(arguments) > 0)
			})
		},
	}
	s.flags(cmd, "names")
	cmd.Flags().StringArrayVar(&labels, "label", nil, "only those with a label, as `KEY=VALUE`; may be given again")
	cmd.Flags().StringVar(&state, "state", "", "only those in a state: running, stopped, paused, creating or error")
	return cmd
}

// list returns all sandboxes that match, by name.
func (v *verbs) list(ctx context.Context, arguments map[string]any) (all []view.Sandbox, err error) {
	cursor := ""
	for {
		var page struct {
			Sandboxes  []view.Sandbox `json:"sandboxes"`
			NextCursor string         `json:"next_cursor"`
		}
		args := with(arguments, "limit", manager.MaxListLimit)
		if cursor != "" {
			args["cursor"] = cursor
		}
		if err := v.call(ctx, policy.VerbListSandboxes, args, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Sandboxes...)
		if cursor = page.NextCursor; cursor == "" {
			return all, nil
		}
	}
}

func (v *verbs) printList(boxes []view.Sandbox, s shown, filtered bool) error {
	switch {
	case s.json && boxes == nil:
		return v.printJSON([]view.Sandbox{})
	case s.json:
		return v.printJSON(boxes)
	case s.quiet:
		for _, b := range boxes {
			fmt.Fprintln(v.out, b.Name)
		}
		return nil
	case len(boxes) == 0 && filtered:
		fmt.Fprintln(v.err, "no sandbox matches")
		return nil
	case len(boxes) == 0:
		fmt.Fprintf(v.err, "there is no sandbox; `%s create NAME` makes one\n", program.Name)
		return nil
	}
	var rows [][]string
	for _, b := range boxes {
		rows = append(rows, []string{b.Name, stateOf(b), orNone(b.Address), string(b.Egress), b.From, view.Past(b.CreatedAt), ends(b), orNone(pairs(b.Labels))})
	}
	return v.printTable([]string{"NAME", "STATE", "ADDRESS", "EGRESS", "FROM", "CREATED", "ENDS", "LABELS"}, rows)
}

// stateOf is the state of a sandbox, or that it sleeps.
func stateOf(s view.Sandbox) string {
	if s.Asleep {
		return "asleep"
	}
	return string(s.State)
}

// ends says in a table when a sandbox ends.
func ends(s view.Sandbox) string {
	if !s.Destroyed.IsZero() {
		return "over, gone " + view.Left(s.Destroyed)
	}
	return view.Left(s.ExpiresAt)
}

// until says when a sandbox ends.
func until(s view.Sandbox) string {
	switch {
	case !s.Destroyed.IsZero():
		return fmt.Sprintf("%s, when its lease was over; it is destroyed at %s (%s)", view.Moment(s.ExpiresAt), view.Moment(s.Destroyed), view.Left(s.Destroyed))
	case s.ExpiresAt.IsZero():
		return ""
	}
	return fmt.Sprintf("%s (%s)", view.Moment(s.ExpiresAt), view.Left(s.ExpiresAt))
}

// orNone stands in a table for what there is none of.
func orNone(text string) string {
	if text == "" {
		return "—"
	}
	return text
}

// status is all that is shown of one sandbox.
type status struct {
	view.Sandbox
	Network     view.Egress       `json:"network"`
	Checkpoints []view.Checkpoint `json:"checkpoints,omitempty"`
}

func (a *cli) statusCommand() *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use:   "status NAME",
		Short: "Show all that is known of a sandbox",
		Args:  exactly(1, "the name of a sandbox"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				out, err := v.status(ctx, args[0])
				if err != nil {
					return err
				}
				if s.json {
					return v.printJSON(out)
				}
				v.printStatus(out)
				return nil
			})
		},
	}
	s.flags(cmd, "")
	return cmd
}

func (v *verbs) status(ctx context.Context, name string) (out status, err error) {
	if out.Sandbox, err = v.find(ctx, name); err != nil {
		return out, err
	}
	if err = v.call(ctx, policy.VerbEgress, map[string]any{"name": name}, &out.Network); err != nil {
		return out, err
	}
	var have struct {
		Checkpoints []view.Checkpoint `json:"checkpoints"`
	}
	err = v.call(ctx, policy.VerbListCheckpoints, map[string]any{"name": name}, &have)
	out.Checkpoints = have.Checkpoints
	return out, err
}

func (v *verbs) printStatus(s status) {
	fmt.Fprintf(v.out, "%s is %s\n", s.Name, stateOf(s.Sandbox))
	egress := string(s.Network.Mode)
	if !s.Network.Enforced {
		egress += ", NOT ENFORCED"
	}
	var labels []string
	for _, c := range s.Checkpoints {
		labels = append(labels, fmt.Sprintf("%s (%s, %s)", c.Label, view.Past(c.CreatedAt), units.Size(c.Size)))
	}
	v.printFields([][2]string{
		{"Address", s.Address}, {"From", s.From}, {"Owner", s.Owner}, {"Created", fmt.Sprintf("%s (%s)", view.Moment(s.CreatedAt), view.Past(s.CreatedAt))},
		{"Until", until(s.Sandbox)}, {"Labels", pairs(s.Labels)}, {"Egress", egress}, {"Checkpoints", strings.Join(labels, ", ")},
	})
	fmt.Fprintf(v.out, "`%s network show %s` shows what it may reach\n", program.Name, s.Name)
}
