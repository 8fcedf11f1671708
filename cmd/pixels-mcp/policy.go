package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"pixels/internal/app"
	"pixels/internal/program"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/sandbox/manager"
	"pixels/tools"
)

func (a *cli) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check the policy: what agents may do",
		Args:  knownCommand, RunE: help,
	}
	var as string
	asJSON := false
	check := &cobra.Command{
		Use:   "check [FILE] | check --as OWNER CALL JSON",
		Short: "Check a policy file, or say what would become of a call",
		Long: "check reads a policy file, the one in force when none is named, and says what is wrong with it.\n" +
			"With --as it says what the policy in force has to say of a call of a tool by an owner: allow, deny or ask, and\n" +
			"the key that decides. Nothing is done. The exit code is 1 when the call is denied.",
		Example: "  " + program.Name + " policy check new-policy.toml\n" +
			"  " + program.Name + " policy check --as alice allow_domain '{\"name\": \"work\", \"domains\": [\"example.com\"], \"reason\": \"docs\"}'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if as != "" {
				return a.verdict(cmd.Context(), as, args, asJSON)
			}
			if len(args) > 1 {
				return usageError{errors.New("`" + program.Name + " policy check` wants one file, or --as OWNER with a call and its arguments")}
			}
			path := a.policyPath()
			if len(args) > 0 {
				path = args[0]
			}
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
				if len(args) > 0 {
					return fmt.Errorf("there is no file %s", path)
				}
				fmt.Fprintf(a.out, "%s: not there, so the defaults are in force; `"+program.Name+" setup` writes them there\n", path)
				return nil
			}
			if _, err := policy.Open(path); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s: good\n", path)
			return nil
		},
	}
	check.Flags().StringVar(&as, "as", "", "the `owner` who would call")
	check.Flags().BoolVar(&asJSON, "json", false, "print the verdict as JSON")
	cmd.AddCommand(check)
	return cmd
}

// verdict prints what would become of a call.
func (a *cli) verdict(ctx context.Context, owner string, args []string, asJSON bool) error {
	if len(args) == 1 {
		args = append(args, "{}")
	}
	if len(args) != 2 || !ownerRule.MatchString(owner) {
		return usageError{errors.New("`" + program.Name + " policy check --as OWNER` wants the name of a tool and its arguments as JSON, as create_sandbox '{\"cpu\": 2}'")}
	}
	if err := a.notBesideService(); err != nil {
		return err
	}
	var v policy.Verdict
	err := a.withApp(func(opened *app.App) (err error) {
		caller := manager.Agent(owner)
		caller.Trial = true
		if caps, err := opened.Manager.CapsOf(owner); err == nil { // else no token has that name
			caller.Caps = caps
		}
		v, err = tools.Verdict(ctx, tools.Session{Manager: opened.Manager, Operations: tools.NewOperations(ctx), Caller: caller}, args[0], json.RawMessage(args[1]))
		return err
	})
	if err != nil {
		return fmt.Errorf("the call is refused before the policy is asked: %w", err)
	}
	if asJSON {
		err = a.printJSON(v)
	} else {
		text := string(v.Decision)
		if v.Rule != "" {
			text += " (" + v.Rule + "): " + view.Reason(v, view.Terminal)
		}
		_, err = fmt.Fprintln(a.out, text)
	}
	if err == nil && v.Decision == policy.Deny {
		return exitCode(exitFailed)
	}
	return err
}

// writePolicy writes the default policy where there is none, for a human to edit.
func (a *cli) writePolicy() error {
	path := a.policyPath()
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make the folder for the policy: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the policy: %w", err)
	}
	_, err = f.WriteString(policy.Default)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the policy: %w", errors.Join(err, os.Remove(path)))
	}
	fmt.Fprintf(a.out, "  ok    policy %s: what agents may do, for you to edit (new)\n", path)
	return nil
}
