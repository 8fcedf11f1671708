package policy

// Scope is what a grant is for.
type Scope string

// The scopes. Once is for one connection, of the sandbox that asked first; Askers for those that asked, and not for what is
// cloned from them.
const (
	Once        Scope = "once"
	Askers      Scope = "asked"
	ThisLineage Scope = "lineage"
)

// Scopes are all of them.
var Scopes = []Scope{Once, Askers, ThisLineage}
