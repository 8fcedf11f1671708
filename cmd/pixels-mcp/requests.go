package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"pixels/internal/program"
	"pixels/internal/view"
	"pixels/policy/ledger"
	"pixels/sandbox/manager"
)

func (a *cli) requestsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "requests",
		Short: "Decide what agents ask for: list, show, approve, deny, revoke, watch",
		Long: "requests shows what agents and their sandboxes ask to reach, and takes your answer. An approval is in force at once,\n" +
			"in the sandboxes that asked or, with --scope lineage, in all of the same lineage and their clones; it always ends.",
		Args: knownCommand, RunE: help,
	}
	cmd.AddCommand(a.requestsList(), complete(a.requestsShow(), false, a.someRequest), complete(a.requestsApprove(), true, a.someRequest),
		complete(a.requestsDeny(), true, a.someRequest), a.requestsRevoke(), a.requestsWatch())
	return cmd
}

// withRequests calls do with a manager for a human who looks at all owners' requests unless --owner names one.
func (a *cli) withRequests(cmd *cobra.Command, do func(m *manager.Human, owner string) error) error {
	owner := ""
	if cmd.Flags().Changed("owner") {
		owner = a.owner
	}
	return a.withHuman(func(m *manager.Human) error { return do(m, owner) })
}

// by says who decides here.
func (a *cli) by() string { return "cli, by " + localUser() }

func (a *cli) requestsList() *cobra.Command {
	asJSON, all := false, false
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the open requests, the oldest first",
		Args:  noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := a.questions(cmd, all)
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
			var rows [][]string
			for _, q := range list {
				rows = append(rows, []string{q.Name(), q.Subject, string(q.State), view.WhoAsks(q.Request), q.Lasting(), view.Ago(q.At) + " ago", strconv.Itoa(q.Count), view.Why(q.Request)})
			}
			if err := a.printTable([]string{"ID", "DOMAIN", "STATE", "SANDBOX", "FOR", "ASKED", "TIMES", "WHY"}, rows); err != nil {
				return err
			}
			if mine, _ := a.served(); !all && mine == nil { // those who use a service do not decide
				fmt.Fprintln(a.out, "answer with `"+program.Name+" requests approve ID` or `deny ID`; an ID names all that its line shows")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&all, "all", false, "those that are answered, too")
	return cmd
}

// questions returns the requests that are open, or all: of every owner unless --owner names one. A service shows each user their own.
func (a *cli) questions(cmd *cobra.Command, all bool) (list []view.Question, err error) {
	served, err := a.served()
	if err != nil {
		return nil, err
	}
	if served != nil {
		return served.Requests(cmd.Context(), all)
	}
	err = a.withRequests(cmd, func(m *manager.Human, owner string) (err error) {
		a.sayWhere()
		list, err = view.Questions(m.Manager, owner, all)
		return err
	})
	return list, err
}

// looked are the lines about an open request that its sandboxes, and its name, tell.
func looked(l manager.Look) (lines [][2]string) {
	if l.Refused > 0 {
		lines = append(lines, [2]string{"denied", fmt.Sprintf("%d times before", l.Refused)})
	}
	lines = append(lines, [2]string{"in letters", l.Display}, [2]string{"CAREFUL", l.Alike}, [2]string{"it opens", l.Opens}, [2]string{"connection", strings.TrimSpace(heldFor(l))})
	for _, a := range l.Askers {
		text := "gone"
		if !a.Gone {
			text = strings.Join(append([]string{"made " + view.Ago(a.Born) + " ago, reaches " + a.Reaches}, a.Labels...), ", ")
		}
		lines = append(lines, [2]string{a.Sandbox, text})
	}
	return lines
}

func (a *cli) requestsShow() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one request",
		Args:  exactly(1, "the ID of a request"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, _ := ledger.ParseHandle(args[0])
			served, err := a.served()
			if err != nil {
				return err
			}
			if served != nil {
				q, err := served.Request(cmd.Context(), id)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(q)
				}
				return a.showRequest(q, nil)
			}
			return a.withRequests(cmd, func(m *manager.Human, _ string) error {
				r, err := m.Request(id)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(view.QuestionOf(m.Manager, r))
				}
				return a.showLooked(cmd.Context(), m, r)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// showLooked shows a request to the human who may answer it, with what its sandboxes tell.
func (a *cli) showLooked(ctx context.Context, m *manager.Human, r ledger.Request) error {
	var looks []manager.Look
	if !r.State.Ended() {
		var err error
		if looks, err = m.Looks(ctx, []ledger.Request{r}); err != nil {
			return err
		}
	}
	return a.showRequest(view.QuestionOf(m.Manager, r), looks)
}

func (a *cli) showRequest(q view.Question, looks []manager.Look) error {
	lines := [][2]string{
		{"request", q.Name() + ", " + string(q.State)}, {"to reach", q.Subject}, {"asked by", fmt.Sprintf("%s of %s", strings.Join(q.Names(), ", "), q.Owner)},
		{"why", view.Why(q.Request)}, {"process", q.Process}, {"asked", fmt.Sprintf("%s, %d times, last %s", view.Moment(q.At), q.Count, view.Moment(q.Last))},
	}
	if !q.State.Ended() {
		lines = append(lines, [2]string{"for", q.Lasting()}, [2]string{"expires", view.Moment(q.Expires)})
	} else {
		lines = append(lines, [2]string{"decided", view.Moment(q.DecidedAt) + " " + q.DecidedBy}, [2]string{"answer", q.Answer}, [2]string{"scope", string(q.Scope)})
	}
	if !q.Until.IsZero() {
		lines = append(lines, [2]string{"until", view.Moment(q.Until)})
	}
	for _, l := range looks {
		lines = append(lines, looked(l)...)
	}
	a.printFields(lines)
	return nil
}

// How often watch looks for requests, and for how long others may take its word that a human is there.
const (
	watchRequests = 250 * time.Millisecond
	presentFor    = 15 * time.Second
)

func (a *cli) requestsWatch() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show requests as they come, until interrupted",
		Long: "watch shows requests as they come, and takes your answers by keys on a terminal. While it runs you count as present:\n" +
			"connections that are blocked are held for your answer (egress.hold of the policy), and go through when you approve.",
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withRequests(cmd, func(m *manager.Human, owner string) error {
				return a.watch(cmd.Context(), m, owner, asJSON)
			})
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line, whenever a request is new or answered")
	return cmd
}

func (a *cli) watch(ctx context.Context, m *manager.Human, owner string, asJSON bool) error {
	leave, err := m.Present(ctx, fmt.Sprintf("cli-%d", os.Getpid()), presentFor)
	if err != nil {
		return err
	}
	defer leave()
	if in, ok := terminal(a.in); ok && !asJSON {
		if _, ok := terminal(a.raw); ok {
			return a.watchKeys(ctx, m, owner, in)
		}
	}
	if !asJSON {
		fmt.Fprintln(a.out, "waiting for requests; answer with `"+program.Name+" requests approve ID` or `deny ID` in another terminal")
	}
	a.sayWhere()
	begun := time.Now()
	states := map[string]ledger.RequestState{}
	for {
		list, err := m.Requests(owner, 200)
		if err != nil {
			return err
		}
		for _, r := range list {
			if before, was := states[r.ID]; was && before == r.State || !was && r.State.Ended() && r.DecidedAt.Before(begun) {
				continue
			}
			states[r.ID] = r.State
			if err := a.tell(m, r, asJSON); err != nil {
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

func (a *cli) tell(m *manager.Human, r ledger.Request, asJSON bool) error {
	q := view.QuestionOf(m.Manager, r)
	if asJSON {
		return json.NewEncoder(a.out).Encode(q)
	}
	now := time.Now().Format("15:04:05")
	var text string
	if r.State.Ended() {
		text = fmt.Sprintf("%s  %s  %s: %s, %s", now, r.ID, r.Subject, r.State, strings.TrimSpace(r.DecidedBy+" "+r.Answer))
	} else {
		text = fmt.Sprintf("%s  %s  %s wants to reach %s for %s: %s", now, q.Name(), view.WhoAsks(r), r.Subject, q.Lasting(), view.Why(r))
	}
	_, err := fmt.Fprintln(a.out, text)
	return err
}
