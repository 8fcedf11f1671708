package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"pixels/internal/app"
	"pixels/internal/program"
	"pixels/policy"
	"pixels/policy/approver"
	"pixels/sandbox/manager"
)

func (a *cli) approvalCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "approval",
		Short: "Set what proves that it is you who approves",
		Long: "approval sets the passphrase that approvals want when the policy has approval = \"passphrase\". Passkeys are set on\n" +
			"the page, `" + program.Name + " web`. SECURITY.md says what each of them stops, and what it doesn't.",
		Args: knownCommand, RunE: help,
	}
	cmd.AddCommand(&cobra.Command{
		Use:   "passphrase",
		Short: "Set the passphrase; where there is one, it is asked for first",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			return a.withApprover(func(proofs *approver.Approver) error {
				set, _, err := proofs.Set()
				if errors.Is(err, approver.ErrProofLost) {
					fmt.Fprintf(a.err, "%v: passkeys are to be added anew, too\n", err)
				} else if err != nil {
					return err
				}
				ask := a.asker()
				was := ""
				if set {
					if was, err = ask("the passphrase that there is: "); err != nil {
						return err
					}
				}
				next, err := ask("new passphrase: ")
				if err != nil {
					return err
				}
				again, err := ask("once more: ")
				if err != nil {
					return err
				}
				if again != next {
					return errors.New("the two are not the same; nothing was changed")
				}
				if err := proofs.SetPassphrase(was, next); err != nil {
					return err
				}
				fmt.Fprintln(a.out, "the passphrase is set; approvals want it once the policy has approval = \"passphrase\"")
				return nil
			})
		},
	}, &cobra.Command{
		Use:   "show",
		Short: "Show what the policy asks for, and what is set",
		Args:  noArguments,
		RunE: func(*cobra.Command, []string) error {
			return a.withApprover(func(proofs *approver.Approver) error {
				p, err := policy.Open(a.policyPath())
				if err != nil {
					return err
				}
				set, keys, err := proofs.Set()
				if err != nil {
					return err
				}
				fmt.Fprintf(a.out, "the policy asks for: %s\npassphrase: %s\npasskeys: %d\n", p.Now().Approval(), map[bool]string{true: "set", false: "not set"}[set], keys)
				return nil
			})
		},
	})
	return cmd
}

func (a *cli) withApprover(do func(*approver.Approver) error) error {
	if err := a.notBesideService(); err != nil {
		return err
	}
	store, err := app.OpenLedger(a.warn)
	if err != nil {
		return err
	}
	defer store.Close()
	return do(approver.Beside(store.Path()))
}

// asker returns a func that asks for a secret: on the terminal without showing it, or else a line of stdin.
func (a *cli) asker() func(prompt string) (string, error) {
	if f, ok := terminal(a.in); ok {
		return func(prompt string) (string, error) {
			fmt.Fprint(a.err, prompt)
			b, err := term.ReadPassword(int(f.Fd()))
			fmt.Fprintln(a.err)
			return string(b), err
		}
	}
	return func(prompt string) (string, error) {
		text, err := a.line()
		if err != nil {
			err = fmt.Errorf("%swanted on a terminal, or as a line of stdin: %w", prompt, err)
		}
		return text, err
	}
}

// line reads a line of stdin.
func (a *cli) line() (string, error) {
	if a.lines == nil {
		a.lines = bufio.NewReader(a.in)
	}
	text, err := a.lines.ReadString('\n')
	if errors.Is(err, io.EOF) && text != "" {
		err = nil
	}
	return strings.TrimRight(text, "\r\n"), err
}

// proven returns a manager for what widens a sandbox's reach, when the human proves to be one as the policy asks.
func (a *cli) proven(m *manager.Human) (*manager.Human, error) {
	passphrase := ""
	if m.Approval() == policy.Passphrase {
		var err error
		if passphrase, err = a.asker()("passphrase: "); err != nil {
			return nil, err
		}
	}
	return m.Prove(passphrase)
}
