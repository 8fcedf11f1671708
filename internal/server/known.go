package server

import (
	"crypto/rand"
	"sync"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// known is what a client has said of itself.
type known struct {
	mu    sync.Mutex
	id    string
	begun bool
	info  mcp.Implementation
	can   mcp.ClientCapabilities
}

// SessionID implements the SDK's ClientSession.
func (k *known) SessionID() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.id == "" {
		k.id = rand.Text()
	}
	return k.id
}

// Initialize implements ClientSession.
func (k *known) Initialize() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun = true
}

// Initialized implements ClientSession.
func (k *known) Initialized() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.begun
}

// GetClientInfo implements the SDK's SessionWithClientInfo.
func (k *known) GetClientInfo() mcp.Implementation {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.info
}

// SetClientInfo implements SessionWithClientInfo.
func (k *known) SetClientInfo(info mcp.Implementation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.info = info
}

// GetClientCapabilities implements SessionWithClientInfo.
func (k *known) GetClientCapabilities() mcp.ClientCapabilities {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.can
}

// SetClientCapabilities implements SessionWithClientInfo.
func (k *known) SetClientCapabilities(can mcp.ClientCapabilities) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.can = can
}

// NotificationChannel implements ClientSession.
func (s *lineSession) NotificationChannel() chan<- mcp.JSONRPCNotification { return s.notified }

var _ mcpserver.SessionWithClientInfo = (*lineSession)(nil)
