package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const longBytes = 1 << 20

// origin answers with n bytes and status; a POST must bring what it promises.
func origin(t *testing.T, secure bool, status, n int) netip.AddrPort {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got, err := io.Copy(io.Discard, r.Body); err != nil || r.Method == "POST" && got != 10<<10 {
			http.Error(w, "not the body that was sent", http.StatusBadRequest)
			return
		}
		body := "stable" + strings.Repeat("x", n-len("stable"))
		if r.URL.Path == "/chunks" {
			w.WriteHeader(status)
			io.WriteString(w, body[:n/2])
			w.(http.Flusher).Flush()
			io.WriteString(w, body[n/2:])
			return
		}
		w.Header().Set("Content-Length", strconv.Itoa(n))
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

func saturate(t *testing.T, o options) report {
	t.Helper()
	o.conns, o.warmup, o.duration = 4, 50*time.Millisecond, 100*time.Millisecond
	if o.path == "" {
		o.path = "/"
	}
	o.users = []user{{id: "1"}, {id: "2"}}
	seen, err := o.measure()
	if err != nil {
		if strings.HasPrefix(err.Error(), "more than") {
			return report{Errors: errorsMax}
		}
		t.Fatal(err)
	}
	return seen.(report)
}

func TestRightAnswersAreCounted(t *testing.T) {
	for name, o := range map[string]options{
		"kept":          {addr: origin(t, false, 200, 200), body: 200},
		"longer":        {addr: origin(t, false, 200, longBytes), body: longBytes},
		"chunks":        {addr: origin(t, false, 200, 200), body: 200, path: "/chunks"},
		"POST":          {addr: origin(t, false, 200, 200), body: 200, post: 10 << 10},
		"new":           {addr: origin(t, false, 200, 200), body: 200, fresh: true},
		"TLS":           {addr: origin(t, true, 200, 200), body: 200, tls: true},
		"TLS handshake": {addr: origin(t, true, 200, 200), body: 200, tls: true, fresh: true},
	} {
		if seen := saturate(t, o); seen.Requests == 0 || seen.Errors != 0 {
			t.Errorf("%s: %d answers, errors %v", name, seen.Requests, seen.ErrorKinds)
		}
	}
}

func TestWrongAnswersAreErrors(t *testing.T) {
	for name, o := range map[string]options{
		"status":          {addr: origin(t, false, 500, 200), body: 200},
		"length":          {addr: origin(t, false, 200, 199), body: 200},
		"longer's length": {addr: origin(t, false, 200, longBytes-1), body: longBytes},
		"chunks' length":  {addr: origin(t, false, 200, 199), body: 200, path: "/chunks"},
		"POST's body":     {addr: origin(t, false, 200, 200), body: 200, post: 10<<10 - 1},
		"TLS, status":     {addr: origin(t, true, 500, 200), body: 200, tls: true},
		"TLS, length":     {addr: origin(t, true, 200, 199), body: 200, tls: true},
	} {
		if seen := saturate(t, o); seen.Errors == 0 {
			t.Errorf("%s: %d answers and no error", name, seen.Requests)
		}
	}
}

func TestIdleConnectionsAreHeldAndThoseThatEndAreErrors(t *testing.T) {
	hold := func(timeout time.Duration) held {
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, "stable")
		}))
		server.Config.IdleTimeout = timeout
		server.Start()
		defer server.Close()
		o := options{addr: netip.MustParseAddrPort(server.Listener.Addr().String()), body: 6, idle: 10, path: "/", users: []user{{id: "1"}}}
		seen, err := o.measure()
		if err != nil {
			t.Fatal(err)
		}
		return seen.(held)
	}
	if h := hold(time.Minute); h.Connections != 10 || h.Errors != 0 {
		t.Errorf("held: %+v", h)
	}
	if h := hold(time.Millisecond); h.Errors != 10 {
		t.Errorf("closed: %+v", h)
	}
}

func TestWhatIsAskedMeanwhileIsCountedAndItsFailuresTold(t *testing.T) {
	meanwhile := func(status, bytes int) *flooded {
		ask := "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
		file := t.TempDir() + "/flood.json"
		text := fmt.Sprintf(`{"addr": %q, "rate": 500, "connections": 4, "writers": 1, "change_each": 5, "reads": [%q], "changes": [%[2]q]}`,
			origin(t, false, status, bytes), ask)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		flood, err := readFlood(file)
		if err != nil {
			t.Fatal(err)
		}
		seen := saturate(t, options{addr: origin(t, false, 200, 200), body: 200, rate: 100, flood: flood})
		if seen.Errors != 0 {
			t.Errorf("the load beside it: %v", seen.ErrorKinds)
		}
		return seen.Flood
	}
	for _, bytes := range []int{200, longBytes} {
		if seen := meanwhile(200, bytes); seen.Reads == 0 || seen.Changes == 0 || seen.Errors != 0 {
			t.Errorf("%d bytes: %+v", bytes, seen)
		}
	}
	if seen := meanwhile(500, 200); seen.Errors == 0 {
		t.Errorf("status 500: %+v", seen)
	}
}
