package manager

import (
	"fmt"
	"strings"
	"sync"
)

// keep is how many bytes of each end of an output are kept: both ends of both streams come to about 10k tokens.
const keep = 10_000

// headTail is a writer that keeps the beginning and the end of what is written, and counts what it cut between.
type headTail struct {
	mu   sync.Mutex
	head []byte
	tail []byte
	cut  int64
}

func (h *headTail) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(b)
	room := min(keep-len(h.head), len(b))
	h.head = append(h.head, b[:room]...)
	h.tail = append(h.tail, b[room:]...)
	if extra := len(h.tail) - keep; extra > 0 {
		h.cut += int64(extra)
		h.tail = append(h.tail[:0], h.tail[extra:]...)
	}
	return n, nil
}

// text returns what was kept as valid UTF-8, and whether something was cut.
func (h *headTail) text() (text string, cut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cut == 0 {
		return valid(append(h.head[:len(h.head):len(h.head)], h.tail...)), false
	}
	return cutText(h.head, h.tail, h.cut, "with background set all of it is kept and wait reads on; or write it to a file"), true
}

// valid returns text as valid UTF-8: other bytes, also those of a character cut in two, become U+FFFD.
func valid(b []byte) string { return strings.ToValidUTF8(string(b), "\uFFFD") }

// cutText joins the ends of an output, and says how much is missing between and how to get at it.
func cutText(head, tail []byte, cut int64, hint string) string {
	return fmt.Sprintf("%s\n[... %d bytes cut here; %s ...]\n%s", valid(head), cut, hint, valid(tail))
}
