package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

func (a *cli) requestsApprove() *cobra.Command {
	var scope, lasting, answer string
	cmd := &cobra.Command{
		Use:   "approve ID...",
		Short: "Grant what requests ask for",
		Long: "approve grants what requests ask for: to the sandboxes that asked, unless --scope says otherwise. An ID as `list`\n" +
			"shows it names all that its line shows, and nothing is granted if that has changed since. Of a shorter ID it\n" +
			"shows the request and asks.",
		Example: "  " + program.Name + " requests approve req-k3xisscy6f-q5mzr7ka2x4d --for 30m\n  " + program.Name + " requests approve req-k3xisscy6f --scope once",
		Args:    idsNeeded,
		RunE: func(cmd *cobra.Command, args []string) error {
			var d time.Duration
			if lasting != "" {
				var err error
				if d, err = units.ParseDuration(lasting); err != nil {
					return usageError{fmt.Errorf("--for: %w", err)}
				}
			}
			return a.withRequests(cmd, func(m *manager.Human, _ string) error {
				var all []error
				var answers []manager.Approval
				for _, handle := range args {
					id, seen, err := a.seen(cmd.Context(), m, handle, "approve")
					if err != nil {
						all = append(all, err)
						continue
					}
					answers = append(answers, manager.Approval{ID: id, Seen: seen, By: a.by(), Scope: policy.Scope(scope), For: d, Answer: answer})
				}
				if len(answers) == 0 {
					return errors.Join(all...)
				}
				m, err := a.proven(m)
				if err != nil {
					return err
				}
				for _, each := range answers {
					all = append(all, a.approve(cmd.Context(), m, each))
				}
				return errors.Join(all...)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&scope, "scope", string(policy.Askers), "whose: asked (the sandboxes that asked), lineage (they, all made of the same, and what is cloned from them), or once (one connection)")
	f.StringVar(&lasting, "for", "", "how long, as 30m, 8h or 7d (default as `list` shows it)")
	f.StringVar(&answer, "answer", "", "a word to the agent")
	return cmd
}

func (a *cli) approve(ctx context.Context, m *manager.Human, answer manager.Approval) error {
	got, err := m.Approve(ctx, answer)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s: %s is in reach of %s until %s\n", got.ID, got.Subject, view.Reached(got, view.Terminal), view.Moment(got.Until))
	for _, d := range got.Standing {
		fmt.Fprintf(a.out, "  but not %s, which stays denied (by %s)\n", d.Rule, d.From)
	}
	return nil
}

// seen divides what names a request. Of an ID alone it shows the request, and asks.
func (a *cli) seen(ctx context.Context, m *manager.Human, handle, what string) (id, digest string, err error) {
	id, digest = ledger.ParseHandle(handle)
	if digest != "" {
		return id, digest, nil
	}
	r, err := m.Request(id)
	if err != nil {
		return id, "", err
	}
	if r.State.Ended() {
		return id, "none", nil // the answer says so
	}
	if _, ok := terminal(a.in); !ok {
		return id, "", usageError{fmt.Errorf("%s alone doesn't say what you were shown: give it as `"+program.Name+" requests list` shows it", id)}
	}
	if err := a.showLooked(ctx, m, r); err != nil {
		return id, "", err
	}
	yes, err := a.confirm(what + " it as shown")
	if err == nil && !yes {
		err = fmt.Errorf("%s: nothing was done", id)
	}
	return id, m.Digest(r), err
}

// confirm asks a question that wants a y.
func (a *cli) confirm(question string) (bool, error) {
	fmt.Fprintf(a.err, "%s? [y/N] ", question)
	line, err := a.line()
	if err != nil {
		return false, err
	}
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes", nil
}

func idsNeeded(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError{fmt.Errorf("`%s` wants the IDs of requests; `"+program.Name+" requests list` shows them", cmd.CommandPath())}
	}
	return nil
}

func (a *cli) requestsDeny() *cobra.Command {
	var answer string
	cmd := &cobra.Command{
		Use:     "deny ID...",
		Short:   "Answer requests with no",
		Example: "  " + program.Name + " requests deny req-k3xisscy6f --answer 'use the mirror'",
		Args:    idsNeeded,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRequests(cmd, func(m *manager.Human, _ string) error {
				var all []error
				for _, handle := range args {
					id, seen := ledger.ParseHandle(handle)
					r, err := m.Refuse(cmd.Context(), manager.Approval{ID: id, Seen: seen, By: a.by(), Answer: answer})
					if err != nil {
						all = append(all, err)
						continue
					}
					fmt.Fprintf(a.out, "%s: %s is denied to %s, and to all that is made of the same\n", r.ID, r.Subject, strings.Join(r.Names(), ", "))
				}
				return errors.Join(all...)
			})
		},
	}
	cmd.Flags().StringVar(&answer, "answer", "", "why, or what to do instead: a word to the agent")
	return cmd
}
