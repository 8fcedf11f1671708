package gateway

import (
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"testing"
)

func TestALineThatIsTooLongIsSkipped(t *testing.T) {
	var got []string
	text := "one\n" + strings.Repeat("x", 9<<20) + "\ntwo\n\n" + strings.Repeat("y", 11) + "\n" + strings.Repeat("z", 10) + "\nlast"
	if err := eachLine(strings.NewReader(text), 11, func(line []byte) error { got = append(got, strings.TrimSpace(string(line))); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"one", "two", "", strings.Repeat("z", 10), "last"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A ClientHello is whole at its last byte, in however many records it comes, and what can't become one is over at once.
func TestWhereAClientHelloEnds(t *testing.T) {
	server, client := net.Pipe()
	go func() { _ = tls.Client(client, &tls.Config{ServerName: "a.example"}).Handshake(); _ = client.Close() }()
	whole := make([]byte, maxHello)
	n, err := server.Read(whole)
	if err != nil {
		t.Fatal(err)
	}
	whole = whole[:n]
	_ = server.Close()
	in := func(size int) (out []byte) {
		for part := range slices.Chunk(whole[5:], size) {
			out = append(append(out, 22, 3, 1, byte(len(part)>>8), byte(len(part))), part...)
		}
		return out
	}
	for _, size := range []int{1, 3, 4, 7, 1000, len(whole)} {
		said := in(size)
		for i := range said {
			if helloEnds(said[:i]) {
				t.Fatalf("in records of %d it ends after %d of %d bytes", size, i, len(said))
			}
		}
		if !helloEnds(said) {
			t.Errorf("in records of %d it does not end", size)
		}
		if size > 1 { // crypto/tls takes no more than a few empty or tiny records
			if o := hello(said); o.kind != overTLS || o.host != "a.example" {
				t.Errorf("in records of %d it is read as %+v", size, o)
			}
		}
	}
	for _, bad := range [][]byte{{22, 3, 1, 0, 1, 1, 23}, {22, 3, 1, 0, 0, 21, 3, 1, 0, 2}} {
		if !helloEnds(bad) || hello(bad).kind != broken {
			t.Errorf("%x may become a ClientHello", bad)
		}
	}
}
