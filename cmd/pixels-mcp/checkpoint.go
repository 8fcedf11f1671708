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
)

func (a *cli) checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "checkpoint", Aliases: []string{"cp"},
		Short: "Keep the files of a sandbox, and go back to them: create, list, restore, delete",
		Long: "checkpoint keeps the files of a sandbox as they are, under a label: to go back to them, or to make other sandboxes\n" +
			"of them (`" + program.Name + " create NAME --from SANDBOX:LABEL`). Processes and memory are not in it.",
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.CalledAs() == "cp" && len(args) > 1 {
				return usageError{fmt.Errorf("`%s cp` copies no files yet, an agent's copy_files does; it stands for `%s checkpoint`", program.Name, program.Name)}
			}
			return knownCommand(cmd, args)
		},
		RunE: help,
	}
	cmd.AddCommand(complete(a.checkpointCreate(), false, a.someBox), complete(a.checkpointList(), false, a.someBox),
		complete(a.checkpointRestore(), false, a.someBox, a.checkpointsOf), complete(a.checkpointDelete(), false, a.someBox, a.checkpointsOf))
	return cmd
}

func (a *cli) checkpointCreate() *cobra.Command {
	var s shown
	var label, description string
	cmd := &cobra.Command{
		Use:     "create NAME",
		Short:   "Keep the files of a sandbox as they are now",
		Example: "  " + program.Name + " checkpoint create base --label ready",
		Args:    exactly(1, "the name of a sandbox"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				var made struct {
					Checkpoint string `json:"checkpoint"`
				}
				arguments := map[string]any{"name": args[0]}
				if label != "" {
					arguments["label"] = label
				}
				if description != "" {
					arguments["description"] = description
				}
				p := v.progress("keeping the files of " + args[0])
				err := v.call(ctx, policy.VerbCreateCheckpoint, arguments, &made)
				p.end()
				if err != nil {
					return unmade(ctx, err, "no checkpoint was made")
				}
				_, got, _ := strings.Cut(made.Checkpoint, ":")
				switch {
				case s.json:
					return v.printJSON(made)
				case s.quiet:
					fmt.Fprintln(v.out, got)
				default:
					fmt.Fprintf(v.out, "Kept %s as %s in %s; `%s create NAME --from %s` makes another of it\n", args[0], made.Checkpoint, p.took(), program.Name, made.Checkpoint)
				}
				return nil
			})
		},
	}
	s.flags(cmd, "the label")
	cmd.Flags().StringVar(&label, "label", "", "its label: letters, digits, dots, dashes and underscores (default made up)")
	cmd.Flags().StringVar(&description, "description", "", "what is in it, for whoever picks one later")
	return cmd
}

func (a *cli) checkpointList() *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use: "list NAME", Aliases: []string{"ls"},
		Short: "List the checkpoints of a sandbox, the oldest first",
		Args:  exactly(1, "the name of a sandbox"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				var have struct {
					Checkpoints []view.Checkpoint `json:"checkpoints"`
				}
				if err := v.call(ctx, policy.VerbListCheckpoints, map[string]any{"name": args[0]}, &have); err != nil {
					return err
				}
				return v.printCheckpoints(args[0], have.Checkpoints, s)
			})
		},
	}
	s.flags(cmd, "labels")
	return cmd
}

func (v *verbs) printCheckpoints(name string, all []view.Checkpoint, s shown) error {
	if s.json {
		return v.printJSON(all)
	}
	if len(all) == 0 && !s.quiet {
		fmt.Fprintf(v.err, "%s has no checkpoint; `%s checkpoint create %s` makes one\n", name, program.Name, name)
		return nil
	}
	var rows [][]string
	for _, c := range all {
		if s.quiet {
			fmt.Fprintln(v.out, c.Label)
		}
		rows = append(rows, []string{c.Label, units.Size(c.Size), view.Past(c.CreatedAt), orNone(c.Description)})
	}
	if s.quiet {
		return nil
	}
	return v.printTable([]string{"LABEL", "SIZE", "CREATED", "DESCRIPTION"}, rows)
}

// nameAndLabel reads NAME LABEL, or NAME:LABEL.
func nameAndLabel(cmd *cobra.Command, args []string) error {
	if len(args) == 2 || len(args) == 1 && strings.Contains(args[0], ":") {
		return nil
	}
	return exactly(2, "the name of a sandbox and the label of a checkpoint")(cmd, args)
}

func labelOf(args []string) map[string]any {
	name, label, ok := strings.Cut(args[0], ":")
	if !ok {
		label = args[1]
	}
	return map[string]any{"name": name, "label": label}
}

func (a *cli) checkpointRestore() *cobra.Command {
	var s shown
	cmd := &cobra.Command{
		Use:   "restore NAME LABEL",
		Short: "Put the files of a sandbox back to a checkpoint, and start it anew",
		Long:  "restore puts the files of a sandbox back to what they were, and starts it anew: what runs in it ends, and what was\nwritten since is lost. Its checkpoints all stay, later ones too.",
		Args:  nameAndLabel,
		RunE: func(cmd *cobra.Command, args []string) error {
			arguments := labelOf(args)
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				var box view.Sandbox
				p := v.progress(fmt.Sprintf("restoring %s to %s", arguments["name"], arguments["label"]))
				err := v.call(ctx, policy.VerbRestoreCheckpoint, arguments, &box)
				p.end()
				switch {
				case err != nil:
					return unmade(ctx, err, fmt.Sprintf("%s is as it was", arguments["name"]))
				case s.json:
					return v.printJSON(box)
				}
				fmt.Fprintf(v.out, "Restored %s to %s in %s%s\n", box.Name, arguments["label"], p.took(), at(box))
				return nil
			})
		},
	}
	s.flags(cmd, "")
	return cmd
}

func (a *cli) checkpointDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME LABEL", Aliases: []string{"rm"},
		Short: "Delete a checkpoint for good; the sandbox, and what was made of it, stay",
		Args:  nameAndLabel,
		RunE: func(cmd *cobra.Command, args []string) error {
			arguments := labelOf(args)
			return a.withVerbs(cmd, func(ctx context.Context, v *verbs) error {
				if err := v.call(ctx, policy.VerbDeleteCheckpoint, arguments, nil); err != nil {
					return unmade(ctx, err, "it may still be there; delete it again")
				}
				fmt.Fprintf(v.out, "Deleted checkpoint %s of %s\n", arguments["label"], arguments["name"])
				return nil
			})
		},
	}
}
