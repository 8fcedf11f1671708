package main

import (
	"context"
	"fmt"
	"path/filepath"

	"pixels/internal/place"
	"pixels/internal/program"
	"pixels/policy/ledger"
)

// where says where records, requests and the policy of this program are.
func (a *cli) where() string {
	path, err := place.Database()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("records and requests in %s, policy in %s", path, a.policyPath())
}

// elsewhere are other places of this user's where questions are open: a client that starts a server with another environment
// makes one.
func (a *cli) elsewhere() (out []string) {
	mine, err := place.Database()
	if err != nil {
		return nil
	}
	for _, path := range place.Others(mine) {
		if ids, err := ledger.OpenRequests(context.Background(), path); err == nil && len(ids) > 0 {
			out = append(out, fmt.Sprintf("open questions in another place: %d; see `XDG_STATE_HOME=%s "+program.Name+" requests list`", len(ids), filepath.Dir(filepath.Dir(path))))
		}
	}
	return out
}

// sayWhere says both on stderr.
func (a *cli) sayWhere() {
	fmt.Fprintln(a.err, a.where())
	for _, text := range a.elsewhere() {
		fmt.Fprintln(a.err, text)
	}
}
