package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"pixels/policy"
)

func (a *app) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Check the policy: what agents may do",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a policy file",
		Long:  "check reads a policy file, the one in force when none is named, and says what is wrong with it.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := a.policyPath()
			if len(args) > 0 {
				path = args[0]
			}
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
				if len(args) > 0 {
					return fmt.Errorf("there is no file %s", path)
				}
				fmt.Fprintf(a.out, "%s: not there, so the defaults are in force; `pixels-mcp setup` writes them there\n", path)
				return nil
			}
			if _, err := policy.Open(path); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s: good\n", path)
			return nil
		},
	})
	return cmd
}

// writePolicy writes the default policy where there is none, for a human to edit.
func (a *app) writePolicy() error {
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
