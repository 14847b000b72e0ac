package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/zeebo/xxh3"
)

const bodyBytes = 200

func TestBucketsAreSwitchyards(t *testing.T) {
	g := &gateway{seed: xxh3.HashString("checkout-2026-01")}
	for user, want := range map[string]uint64{"0": 860056, "42": 811208, "12345": 46711, "alice": 831886, "user_42": 672122} {
		if got := g.bucket(user); got != want {
			t.Errorf("bucket(%q) = %d, not %d", user, got, want)
		}
	}
}

func TestAUserGetsItsReleaseWithoutOrigin(t *testing.T) {
	release := func(name string) *url.URL {
		return serveHTTP(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s origin=%q host=%q", name, r.Header.Get("Origin"), r.Header.Get("X-Forwarded-Host"))
		}))
	}
	g := newGateway(map[string]struct{}{"listed": {}}, release("stable"), release("canary"), nil)
	gatewayURL := serveHTTP(t, newHandler(g, nil))

	canaries := 0
	for i := range 1000 {
		user := strconv.Itoa(i)
		want, _ := g.decide(user)
		if got := get(t, gatewayURL, user); got != want+` origin="" host="shop.example.com"` {
			t.Fatalf("user %s: %s", user, got)
		}
		if want == "canary" {
			canaries++
		}
	}
	if canaries < 70 || canaries > 130 {
		t.Errorf("%d of 1000 users on canary, not about 100", canaries)
	}
	if got := get(t, gatewayURL, "listed"); got[:6] != "canary" {
		t.Errorf("listed user: %s", got)
	}
}

// Everything in one process and net/http at both ends: client, gateway and backend share the figures.
// GOMAXPROCS clients at once (`-cpu 8` for more), 100 users in turn.
func BenchmarkWholeWay(b *testing.B) {
	forEachSetting(b, func(b *testing.B, settings setting) {
		gatewayURL := serveHTTP(b, settings.handler(b, serveHTTP(b, http.HandlerFunc(answer))))
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			requests := benchRequests(b, gatewayURL)
			for i := 0; pb.Next(); i++ {
				response, err := client.Do(requests[i%len(requests)])
				if err != nil {
					b.Error(err)
					return
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		})
	})
}

// The handler is called directly with a recorder and forwards to a net/http backend over loopback:
// gateway handler, its transport, and the backend.
func BenchmarkHandler(b *testing.B) {
	forEachSetting(b, func(b *testing.B, settings setting) {
		handler := settings.handler(b, serveHTTP(b, http.HandlerFunc(answer)))
		requests := benchRequests(b, &url.URL{Scheme: "http", Host: "shop.example.com"})
		ctx, cancel := context.WithCancel(b.Context()) // as a server's requests have: without it ReverseProxy asks for CloseNotifier
		defer cancel()
		for i := range requests {
			requests[i] = requests[i].WithContext(ctx)
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			recorder := httptest.NewRecorder()
			handler.ServeHTTP(recorder, requests[i%len(requests)])
			if recorder.Code != http.StatusOK {
				b.Fatal(recorder.Code)
			}
		}
	})
}

// The gateway alone allocates: client and backend are loops over raw sockets that do not.
// B/op and allocs/op are the gateway's own, its HTTP server and its transport included; ns/op is the whole way.
func BenchmarkGatewayAlone(b *testing.B) {
	forEachSetting(b, func(b *testing.B, settings setting) {
		gatewayURL := serveHTTP(b, settings.handler(b, serveRaw(b)))
		var raw [][]byte
		for _, request := range benchRequests(b, gatewayURL) {
			var wire bytes.Buffer
			request.Write(&wire)
			raw = append(raw, wire.Bytes())
		}
		conn, err := net.Dial("tcp", gatewayURL.Host)
		if err != nil {
			b.Fatal(err)
		}
		defer conn.Close()
		answers := bufio.NewReaderSize(conn, 16<<10)
		for range 1000 {
			exchange(b, conn, answers, raw[0])
		}
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			exchange(b, conn, answers, raw[i%len(raw)])
		}
	})
}

type setting struct {
	name             string
	buffers, withLog bool
}

func forEachSetting(b *testing.B, run func(*testing.B, setting)) {
	for _, s := range []setting{{name: "plain"}, {name: "access-log", withLog: true}, {name: "buffer-pool", buffers: true}} {
		b.Run(s.name, func(b *testing.B) { run(b, s) })
	}
}

// handler is the gateway with 100,000 listed users and both releases at one backend.
func (s setting) handler(b *testing.B, backend *url.URL) http.Handler {
	listed := make(map[string]struct{}, 100_000)
	for i := range 100_000 {
		listed[strconv.Itoa(1_000_000+7*i)] = struct{}{}
	}
	g := newGateway(listed, backend, backend, nil)
	if s.buffers {
		g = newGateway(listed, backend, backend, newBufferPool())
	}
	if !s.withLog {
		return newHandler(g, nil)
	}
	log, err := openAccessLog(filepath.Join(b.TempDir(), "access.log"))
	if err != nil {
		b.Fatal(err)
	}
	return newHandler(g, log)
}

func answer(w http.ResponseWriter, _ *http.Request) { w.Write(make([]byte, bodyBytes)) }

func serveHTTP(t testing.TB, handler http.Handler) *url.URL {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func get(t *testing.T, at *url.URL, user string) string {
	request := newRequest(t, at, user)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func benchRequests(b testing.TB, at *url.URL) (requests []*http.Request) {
	for i := range 100 {
		requests = append(requests, newRequest(b, at, strconv.Itoa(1_000_000+7*i/2)))
	}
	return requests
}

func newRequest(t testing.TB, at *url.URL, user string) *http.Request {
	request, err := http.NewRequest("GET", at.String()+"/api/items?page=3", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "shop.example.com"
	request.RemoteAddr = "127.0.0.1:40000"
	request.Header.Set("Accept", "*/*")
	request.Header.Set("Origin", "https://shop.example.com")
	request.Header.Set(userHeader, user)
	return request
}

// serveRaw answers every request without allocating.
func serveRaw(b *testing.B) *url.URL {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	response := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200\r\n\r\n" +
		string(bytes.Repeat([]byte{'x'}, bodyBytes)))
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				requests := bufio.NewReaderSize(conn, 16<<10)
				for readHead(requests) == nil {
					conn.Write(response)
				}
			}()
		}
	}()
	return &url.URL{Scheme: "http", Host: listener.Addr().String()}
}

func exchange(b *testing.B, conn net.Conn, answers *bufio.Reader, request []byte) {
	conn.Write(request)
	if err := readHead(answers); err != nil {
		b.Fatal(err)
	}
	if _, err := answers.Discard(bodyBytes); err != nil {
		b.Fatal(err)
	}
}

// readHead reads to the empty line.
func readHead(r *bufio.Reader) error {
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) == 2 {
			return nil
		}
	}
}
