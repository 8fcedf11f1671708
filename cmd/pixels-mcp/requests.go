package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/units"
	"pixels/policy"
	"pixels/sandbox"
)

func (a *app) requestsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "requests",
		Short: "Decide what agents ask for: list, show, approve, deny, watch",
		Long: "requests shows what agents and their sandboxes ask to reach, and takes your answer. An approval is in force at once,\n" +
			"in the sandbox that asked and in all its clones, and always ends.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.requestsList(), a.requestsShow(), a.requestsApprove(), a.requestsDeny(), a.requestsWatch())
	return cmd
}

// withRequests calls do with a manager for a human who looks at all owners' requests unless --owner names one.
func (a *app) withRequests(cmd *cobra.Command, do func(m *sandbox.Manager, owner string) error) error {
	owner := ""
	if cmd.Flags().Changed("owner") {
		owner = a.owner
	}
	return a.withManager(func(m *sandbox.Manager) error { return do(m, owner) })
}

// by says who decides here.
func (a *app) by() string { return "cli, by " + localUser() }

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func (a *app) requestsList() *cobra.Command {
	asJSON, all := false, false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the open requests, the oldest first",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withRequests(cmd, func(m *sandbox.Manager, owner string) error {
				states := []policy.RequestState{policy.RequestOpen, policy.RequestGranting}
				if all {
					states = nil
				}
				list, err := m.Requests(owner, 1000, states...)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(list)
				}
				if len(list) == 0 {
					fmt.Fprintln(a.out, "nothing is asked")
					return nil
				}
				w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "ID\tSTATE\tSANDBOX\tDOMAIN\tASKED\tTIMES\tWHY")
				for _, r := range list {
					fmt.Fprintf(w, "%s\t%s\t%s/%s\t%s\t%s ago\t%d\t%s\n", r.ID, r.State, r.Owner, r.Sandbox, r.Rule, ago(r.At), r.Count, why(r))
				}
				return w.Flush()
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&all, "all", false, "those that are answered, too")
	return cmd
}

func ago(t time.Time) string {
	return units.Duration(max(time.Since(t).Truncate(time.Second), time.Second))
}

// why says what the one who asks says; none of it is more than a claim.
func why(r policy.Request) string {
	switch {
	case r.Reason != "":
		return fmt.Sprintf("the agent says: %q", r.Reason)
	case r.Process != "":
		return fmt.Sprintf("a connection, as the sandbox says of process %q", r.Process)
	case r.Source == policy.ByAgent:
		return "the agent asks"
	}
	return "a connection that was blocked"
}

func (a *app) requestsShow() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one request",
		Args:  exactly(1, "the ID of a request"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRequests(cmd, func(m *sandbox.Manager, _ string) error {
				r, err := m.Request(args[0])
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(r)
				}
				return a.showRequest(r)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) showRequest(r policy.Request) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	local := func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
	lines := [][2]string{
		{"request", r.ID + ", " + string(r.State)}, {"to reach", r.Rule}, {"for", fmt.Sprintf("sandbox %s of %s, and its clones", r.Sandbox, r.Owner)},
		{"why", why(r)}, {"process", r.Process}, {"asked", fmt.Sprintf("%s, %d times, last %s", local(r.At), r.Count, local(r.Last))},
	}
	if r.Wanted > 0 {
		lines = append(lines, [2]string{"wanted for", units.Duration(r.Wanted.Duration())})
	}
	if !r.State.Ended() {
		lines = append(lines, [2]string{"expires", local(r.Expires)})
	} else {
		lines = append(lines, [2]string{"decided", local(r.DecidedAt) + " " + r.DecidedBy}, [2]string{"answer", r.Answer}, [2]string{"scope", string(r.Scope)})
	}
	if !r.Until.IsZero() {
		lines = append(lines, [2]string{"until", local(r.Until)})
	}
	for _, l := range lines {
		if l[1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", l[0], l[1])
		}
	}
	return w.Flush()
}

func (a *app) requestsApprove() *cobra.Command {
	var scope, lasting, answer string
	cmd := &cobra.Command{
		Use:     "approve ID...",
		Short:   "Grant what requests ask for",
		Example: "  pixels-mcp requests approve req-k3xisscy6f --for 1h\n  pixels-mcp requests approve req-k3xisscy6f --scope once",
		Args:    idsNeeded,
		RunE: func(cmd *cobra.Command, args []string) error {
			var d time.Duration
			if lasting != "" {
				var err error
				if d, err = units.ParseDuration(lasting); err != nil {
					return usageError{fmt.Errorf("--for: %w", err)}
				}
			}
			return a.withRequests(cmd, func(m *sandbox.Manager, _ string) error {
				m, err := a.proven(m)
				if err != nil {
					return err
				}
				var all []error
				for _, id := range args {
					r, n, err := m.Approve(cmd.Context(), sandbox.Approval{ID: id, By: a.by(), Scope: policy.Scope(scope), For: d, Answer: answer})
					if err != nil {
						all = append(all, err)
						continue
					}
					fmt.Fprintf(a.out, "%s: %s is in reach of %s until %s\n", r.ID, r.Rule, reached(r, n), r.Until.Local().Format("2006-01-02 15:04:05"))
				}
				return errors.Join(all...)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&scope, "scope", string(policy.ThisLineage), "whose: lineage (the sandbox that asked, and its clones), sandbox, or once (one connection of it)")
	f.StringVar(&lasting, "for", "", "how long, as 30m, 8h or 7d (default what the agent wants, or egress.grant of the policy)")
	f.StringVar(&answer, "answer", "", "a word to the agent")
	return cmd
}

func reached(r policy.Request, n int) string {
	switch {
	case r.Scope == policy.Once:
		return "one connection of sandbox " + r.Sandbox
	case n == 1:
		return "sandbox " + r.Sandbox
	}
	return fmt.Sprintf("%d sandboxes (%s and what is made of the same)", n, r.Sandbox)
}

func idsNeeded(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return usageError{fmt.Errorf("`%s` wants the IDs of requests; `pixels-mcp requests list` shows them", cmd.CommandPath())}
	}
	return nil
}

func (a *app) requestsDeny() *cobra.Command {
	var answer string
	cmd := &cobra.Command{
		Use:     "deny ID...",
		Short:   "Answer requests with no",
		Example: "  pixels-mcp requests deny req-k3xisscy6f --answer 'use the mirror'",
		Args:    idsNeeded,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withRequests(cmd, func(m *sandbox.Manager, _ string) error {
				var all []error
				for _, id := range args {
					r, err := m.Refuse(cmd.Context(), id, a.by(), answer)
					if err != nil {
						all = append(all, err)
						continue
					}
					fmt.Fprintf(a.out, "%s: %s is denied to %s\n", r.ID, r.Rule, r.Sandbox)
				}
				return errors.Join(all...)
			})
		},
	}
	cmd.Flags().StringVar(&answer, "answer", "", "why, or what to do instead: a word to the agent")
	return cmd
}

// How often watch looks for requests, and for how long others may take its word that a human is there.
const (
	watchRequests = 250 * time.Millisecond
	presentFor    = 15 * time.Second
)

func (a *app) requestsWatch() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show requests as they come, until interrupted",
		Long: "watch shows requests as they come. While it runs you count as present: connections that are blocked are held for\n" +
			"your answer (egress.hold of the policy), and go through when you approve.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withRequests(cmd, func(m *sandbox.Manager, owner string) error {
				return a.watch(cmd.Context(), m, owner, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line, whenever a request is new or answered")
	return cmd
}

func (a *app) watch(ctx context.Context, m *sandbox.Manager, owner string, asJSON bool) error {
	leave, err := m.Present(ctx, fmt.Sprintf("cli-%d", os.Getpid()), presentFor)
	if err != nil {
		return err
	}
	defer leave()
	if !asJSON {
		fmt.Fprintln(a.out, "waiting for requests; answer with `pixels-mcp requests approve ID` or `deny ID` in another terminal")
	}
	begun := time.Now()
	shown := map[string]policy.RequestState{}
	for {
		list, err := m.Requests(owner, 200)
		if err != nil {
			return err
		}
		for _, r := range list {
			if before, was := shown[r.ID]; was && before == r.State || !was && r.State.Ended() && r.DecidedAt.Before(begun) {
				continue
			}
			shown[r.ID] = r.State
			if err := a.tell(r, asJSON); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchRequests):
		}
	}
}

func (a *app) tell(r policy.Request, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(a.out).Encode(r)
	}
	now := time.Now().Format("15:04:05")
	var text string
	if r.State.Ended() {
		text = fmt.Sprintf("%s  %s  %s: %s, %s", now, r.ID, r.Rule, r.State, strings.TrimSpace(r.DecidedBy+" "+r.Answer))
	} else {
		text = fmt.Sprintf("%s  %s  %s/%s wants to reach %s: %s", now, r.ID, r.Owner, r.Sandbox, r.Rule, why(r))
	}
	_, err := fmt.Fprintln(a.out, text)
	return err
}
