package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/app"
	"pixels/internal/program"
	"pixels/internal/units"
	"pixels/internal/view"
	"pixels/policy/ledger"
)

// followEvery is how often audit --follow looks for more.
const followEvery = 500 * time.Millisecond

func (a *cli) auditCommand() *cobra.Command {
	var q ledger.Query
	var kind, since string
	asJSON, follow := false, false
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what was decided and done, by whom, and what sandboxes connected to",
		Long: "audit shows the record, the latest line last: verdicts over calls, commands with exit code and time, connections\n" +
			"(counted), requests, answers, and changes of egress. All lines of one call share its ID; a command has it in its\n" +
			"environment, so that what it reached for leads back to the call.",
		Example: "  " + program.Name + " audit --kind connection --verdict denied --since 1h\n  " + program.Name + " audit --call 3fz0c8n1m2qk7r5t\n  " + program.Name + " audit --follow --json",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q.Kind = ledger.Kind(kind)
			if kind != "" && !slices.Contains(ledger.Kinds, q.Kind) {
				return usageError{fmt.Errorf("--kind %q is unknown: use one of %v", kind, ledger.Kinds)}
			}
			if q.Limit < 0 {
				return usageError{fmt.Errorf("--limit %d: give a number of lines, or 0 for all", q.Limit)}
			}
			if since != "" {
				d, err := units.ParseDuration(since)
				if err != nil {
					return usageError{fmt.Errorf("--since: %w", err)}
				}
				q.Since = time.Now().Add(-d)
			}
			served, err := a.served()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("owner") {
				a.owner = "" // a human looks at all
			}
			q.Owner = a.owner
			if served != nil {
				return a.showRecords(cmd.Context(), func(q ledger.Query) ([]ledger.Record, error) { return served.Records(cmd.Context(), q) }, q, asJSON, follow)
			}
			store, err := app.OpenLedger(a.warn)
			if err != nil {
				return err
			}
			defer store.Close()
			a.sayWhere()
			if err := store.Known(q); err != nil {
				return err
			}
			return a.showRecords(cmd.Context(), store.Records, q, asJSON, follow)
		},
	}
	f := cmd.Flags()
	f.StringVar(&q.Sandbox, "sandbox", "", "only of the sandbox of that `name`")
	f.StringVar(&q.Tool, "tool", "", "only of calls of that tool")
	f.StringVar(&q.Call, "call", "", "only of the call with that `ID`")
	f.StringVar(&kind, "kind", "", "only lines of that kind: decision, exec, connection, request, answer, egress or gap")
	f.StringVar(&q.Verdict, "verdict", "", "only lines with that verdict, as deny or denied")
	f.StringVar(&q.Text, "grep", "", "only lines with that text in what they are about")
	f.StringVar(&since, "since", "", "only the last while, as 30m, 2h or 7d")
	f.IntVar(&q.Limit, "limit", 100, "the latest so many lines; 0 for all")
	f.BoolVar(&asJSON, "json", false, "print a JSON object a line")
	f.BoolVar(&follow, "follow", false, "go on, and show lines as they come, until interrupted")
	cmd.AddCommand(a.auditVerify())
	return cmd
}

func (a *cli) auditVerify() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Look whether all records are as they were written, and none is missing",
		Long: "verify follows the chain of hashes through the record. It shows what was changed or taken out by who didn't compute\n" +
			"the chain anew: whoever can write the file can do that. The exit code is 1 when something is wrong.",
		Args: noArguments,
		RunE: func(*cobra.Command, []string) error {
			if err := a.notBesideService(); err != nil {
				return err
			}
			store, err := app.OpenLedger(a.warn)
			if err != nil {
				return err
			}
			defer store.Close()
			c, err := store.Verify()
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(c)
			} else {
				a.showChain(c)
			}
			if err == nil && len(c.Faults) > 0 {
				err = exitCode(exitFailed)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *cli) showChain(c ledger.Chain) {
	for _, f := range c.Faults {
		fmt.Fprintf(a.out, "FAULT: %s\n", f)
	}
	from := ""
	if !c.From.IsZero() {
		from = ", the first of " + view.Moment(c.From)
	}
	fmt.Fprintf(a.out, "%d records are as they were written%s\n", c.Records, from)
	if c.Pruned > 0 {
		fmt.Fprintf(a.out, "those up to number %d were pruned, as the policy's keep says\n", c.Pruned)
	}
	if c.Older > 0 {
		fmt.Fprintf(a.out, "%d are older than the chain, and can't be looked at\n", c.Older)
	}
	if c.Lost > 0 {
		fmt.Fprintf(a.out, "%d could not be kept when they were made; lines of the kind gap say where\n", c.Lost)
	}
}

func (a *cli) showRecords(ctx context.Context, records func(ledger.Query) ([]ledger.Record, error), q ledger.Query, asJSON, follow bool) error {
	for {
		list, err := records(q)
		if err != nil {
			return err
		}
		for _, r := range list {
			q.After = r.ID
			if err := printRecord(a.out, r, asJSON); err != nil {
				return err
			}
		}
		if !follow {
			return nil
		}
		q.Limit = 0
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(followEvery):
		}
	}
}

func printRecord(w io.Writer, r ledger.Record, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	who := r.Owner
	if r.Sandbox != "" {
		who += "/" + r.Sandbox
	}
	parts := []string{view.Moment(r.At), fmt.Sprintf("%-10s", r.Kind), who}
	add := func(format, text string) {
		if text != "" {
			parts = append(parts, fmt.Sprintf(format, text))
		}
	}
	add("%s", r.Tool)
	add("%s", r.Verdict)
	add("%s", r.Target)
	if r.Count > 1 {
		parts = append(parts, strconv.Itoa(r.Count)+" times")
	}
	if r.Code != nil {
		parts = append(parts, fmt.Sprintf("exit code %d", *r.Code))
	}
	if r.Duration > 0 {
		parts = append(parts, "in "+r.Duration.String())
	}
	add("by %s", r.Rule)
	add("(%s)", r.Detail)
	add("process %s (as the sandbox says)", r.Process)
	add("via %s", r.Channel)
	add("call %s", r.Call)
	_, err := fmt.Fprintln(w, strings.Join(parts, "  "))
	return err
}
