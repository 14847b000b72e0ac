// Command load puts HTTP/1.1 keep-alive load on a proxy and prints what it saw as one JSON object. Linux only.
//
//	load -addr 127.0.0.1:8080 -saturate                 closed loop: each connection sends as soon as it was answered
//	load -addr 127.0.0.1:8080 -rate 4000                open loop: a request is due every 250 µs, whatever the proxy does
//
// With -rate a latency is counted from the moment the request was due, so waiting for a free connection is part of it
// (no coordinated omission). One thread, one epoll, requests rendered beforehand, no allocation once it runs: it shares
// a core with the origin and should leave most of it.
//
//	load -addr 127.0.0.1:8080 -saturate -fresh          a new connection for each request
//	load -addr 127.0.0.1:8443 -saturate -tls [-fresh]   TLS 1.3, with -fresh a full handshake for each request
//	load -addr 127.0.0.1:8080 -idle 10000               what memory that many connections take, each after one request
//	load … -rate 4000 -flood requests.json              other requests to another address meanwhile: see flood.go
//
// Every answer is checked: 200, a body of -body bytes that begins with `stable` or `canary`, `canary` for each listed user,
// and for any user the release that this user got first. Whatever else happens is an error.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

type options struct {
	addr       netip.AddrPort
	conns      int
	rate       int // requests a second; 0: closed loop
	warmup     time.Duration
	duration   time.Duration
	drain      time.Duration
	path       string
	paths      int // {n} in path is the user's place, modulo this
	body       int
	post       int  // bytes of a request's body; 0: GET
	fresh      bool // a new connection for each request
	tls        bool
	idle       int  // connections to hold; 0: load
	routed     bool // check releases
	flood      *flood
	pids       []int
	originPIDs []int
	users      []user
}

type user struct {
	id     string
	listed bool
}

func main() {
	o, err := parse()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(2)
	}
	seen, err := o.measure()
	if err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(seen)
}

func (o options) measure() (any, error) {
	l := newLoad(o)
	switch {
	case o.idle > 0:
		return l.holdIdle()
	case o.tls:
		if err := l.runTLS(); err != nil {
			return nil, err
		}
		return l.report(), nil
	}
	debug.SetGCPercent(-1) // everything is allocated before the first request
	if err := l.run(); err != nil {
		return nil, err
	}
	return l.report(), nil
}

func parse() (o options, err error) {
	addr := flag.String("addr", "", "ip:port of the proxy")
	usersFile := flag.String("users", "", "file with the cycle of users: lines `listed ID` or `other ID`")
	pids := flag.String("pids", "", "comma-separated processes whose CPU time is measured")
	originPIDs := flag.String("origin-pids", "", "likewise those of the origin, to tell them from other programs")
	saturate := flag.Bool("saturate", false, "closed loop")
	flag.IntVar(&o.rate, "rate", 0, "open loop: requests a second")
	flag.IntVar(&o.conns, "conns", 64, "connections")
	flag.DurationVar(&o.warmup, "warmup", time.Second, "load before the measured window")
	flag.DurationVar(&o.duration, "duration", 5*time.Second, "the measured window")
	flag.DurationVar(&o.drain, "drain", 2*time.Second, "how long requests may be answered after the window")
	flag.IntVar(&o.body, "body", 200, "bytes that each answer's body must have")
	flag.StringVar(&o.path, "path", "/api/items?page=3", "what is asked for")
	flag.IntVar(&o.paths, "paths", 1, "different paths: {n} in -path is the number of each")
	flag.IntVar(&o.post, "post", 0, "bytes of each request's body: POST instead of GET")
	flag.BoolVar(&o.fresh, "fresh", false, "a new connection for each request")
	flag.BoolVar(&o.tls, "tls", false, "TLS 1.3; no certificate is verified")
	flag.IntVar(&o.idle, "idle", 0, "hold so many connections, each after one request, and see what memory they take")
	floodFile := flag.String("flood", "", "file that says what else is asked meanwhile")
	flag.BoolVar(&o.routed, "routed", true, "check that users get their release")
	flag.Parse()

	modes := 0
	for _, chosen := range []bool{*saturate, o.rate > 0, o.idle > 0} {
		if chosen {
			modes++
		}
	}
	if modes != 1 {
		return o, errors.New("give one of -saturate, -rate N and -idle N")
	}
	if o.paths < 1 {
		return o, errors.New("-paths: at least 1")
	}
	if o.tls && !*saturate {
		return o, errors.New("-tls: goes with -saturate only")
	}
	if *floodFile != "" {
		if o.rate == 0 {
			return o, errors.New("-flood: goes with -rate only")
		}
		if o.flood, err = readFlood(*floodFile); err != nil {
			return o, fmt.Errorf("-flood: %w", err)
		}
	}
	if o.addr, err = netip.ParseAddrPort(*addr); err != nil {
		return o, fmt.Errorf("-addr: %w", err)
	}
	if !o.addr.Addr().Is4() {
		return o, errors.New("-addr: only IPv4 is served")
	}
	if o.pids, err = parsePIDs(*pids); err != nil {
		return o, err
	}
	if o.originPIDs, err = parsePIDs(*originPIDs); err != nil {
		return o, err
	}
	o.users, err = readUsers(*usersFile)
	return o, err
}

func parsePIDs(list string) (pids []int, err error) {
	for word := range strings.SplitSeq(list, ",") {
		if word == "" {
			continue
		}
		pid, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("process id: %w", err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

func readUsers(path string) (users []user, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("-users: %w", err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		kind, id, ok := strings.Cut(lines.Text(), " ")
		if !ok || kind != "listed" && kind != "other" {
			return nil, fmt.Errorf("-users: line %q is neither `listed ID` nor `other ID`", lines.Text())
		}
		users = append(users, user{id: id, listed: kind == "listed"})
	}
	if len(users) == 0 {
		return nil, errors.New("-users: no users")
	}
	return users, nil
}
