package fault

// Hint is an action that mends an error, and on what.
type Hint struct {
	Action Action
	Name   string // of a sandbox, mostly
	Value  string // what else the action needs
}

// Action is what to do about an error. Each who shows errors has words for all of them.
type Action string

// The actions, and what Name and Value are.
const (
	ListSandboxes    Action = "list sandboxes"
	CreateSandbox    Action = "create a sandbox"
	OtherName        Action = "choose another name, or destroy the sandbox of that one"
	StartSandbox     Action = "start a sandbox"
	Extend           Action = "extend a lease"
	ListCheckpoints  Action = "list checkpoints"
	CreateCheckpoint Action = "create a checkpoint"
	DeleteCheckpoint Action = "delete a checkpoint, or clone it"
	AskForDomain     Action = "ask for a domain"
	ListFiles        Action = "list files"
	ReadFile         Action = "read a file"
	WriteFile        Action = "write a file"
	CopyFiles        Action = "copy files"
	ReadBytes        Action = "read a file's bytes"
	RunInside        Action = "do it by a command inside" // Value: which
	SetUp            Action = "set up"                    // what is missing
	SetUpImage       Action = "set up the image"          // Value: its name
	SetUpHost        Action = "set up the host, as root"  // what it lacks
	JoinIncus        Action = "have root let this user use Incus"
	LookAtIncus      Action = "look why Incus doesn't answer"
	TryGateway       Action = "try the gateway anew"
	TrustClient      Action = "trust this client"         // by its certificate
	LookAtGateway    Action = "look at the gateway"       // Name: of its instance
	GiveNetworkBack  Action = "give the network back"     // Name, and Value: the mode
	AllowByHuman     Action = "have a human allow it"     // Name may be empty; Value: the rule
	SetModeByHuman   Action = "have a human set the mode" // Name may be empty; Value: the mode
	ShowGrants       Action = "show grants"               // Name
	DecideElsewhere  Action = "decide elsewhere"          // about a request
	ListRequests     Action = "list requests"
	SetPassphrase    Action = "set a passphrase"
	ProveAnew        Action = "set up anew what proves an approval"
	OpenFolder       Action = "open a folder of the host"
)
