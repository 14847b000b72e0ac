package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"unsafe"
)

// flood asks for other things while the load runs, at a rate of its own, on the load's thread: a program of its own would
// take turns with the load on their core, and requests would seem late that are not.
type flood struct {
	Addr    netip.AddrPort `json:"addr"`
	Rate    int            `json:"rate"` // requests a second
	Conns   int            `json:"connections"`
	Writers int            `json:"writers"`     // of these are for changes
	Each    int            `json:"change_each"` // one request in so many is a change
	Reads   []string       `json:"reads"`
	Changes []string       `json:"changes"`

	conns []*conn
	free  [2][]*conn // of readers, of writers
	due   int64
	turn  int
	flooded
}

const (
	reads = iota
	changes
)

// flooded is what was answered within the window.
type flooded struct {
	Reads      int            `json:"reads"`
	Changes    int            `json:"changes"`
	Errors     int            `json:"errors"`
	ErrorKinds map[string]int `json:"error_kinds"`
}

func readFlood(path string) (*flood, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &flood{flooded: flooded{ErrorKinds: map[string]int{}}}
	if err := json.Unmarshal(text, f); err != nil {
		return nil, err
	}
	if !f.Addr.Addr().Is4() || f.Rate < 1 || f.Each < 1 || f.Writers < 1 || f.Conns <= f.Writers || len(f.Reads) == 0 || len(f.Changes) == 0 {
		return nil, errors.New("an address, a rate, connections for reads and for changes, and both are needed")
	}
	return f, nil
}

func (f *flood) start(l *load) error {
	for i := range f.Conns {
		c := &conn{user: none}
		if err := l.connectTo(f.Addr, c, len(l.conns)+i); err != nil {
			return err
		}
		f.conns = append(f.conns, c)
		f.free[f.kind(i)] = append(f.free[f.kind(i)], c)
	}
	f.due = now()
	return nil
}

// kind is what the connection is for.
func (f *flood) kind(index int) int {
	if index < f.Writers {
		return changes
	}
	return reads
}

// ask sends what is due, as far as connections are free: changes that wait for one are not saved up.
func (f *flood) ask(t int64) {
	for ; f.due <= t; f.due += 1e9 / int64(f.Rate) {
		kind, requests := reads, f.Reads
		if len(f.free[changes]) > 0 && (f.turn%f.Each == 0 || len(f.free[reads]) == 0) {
			kind, requests = changes, f.Changes
		}
		free := f.free[kind]
		if len(free) == 0 {
			return
		}
		c := free[len(free)-1]
		f.free[kind] = free[:len(free)-1]
		request := unsafe.Slice(unsafe.StringData(requests[f.turn%len(requests)]), len(requests[f.turn%len(requests)]))
		f.turn++
		c.user, c.due, c.have, c.left = 0, f.due, 0, 0
		// A failure shows itself as the end of the connection.
		syscall.RawSyscall(syscall.SYS_WRITE, uintptr(c.fd), uintptr(unsafe.Pointer(&request[0])), uintptr(len(request)))
	}
}

func (f *flood) receive(l *load, index int) error {
	c := f.conns[index]
	into := c.buffer[c.have:]
	if c.left > 0 {
		into = c.buffer[:] // the rest of a long answer, which nobody reads
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(c.fd), uintptr(unsafe.Pointer(&into[0])), uintptr(len(into)))
	if why, ok := unread(n, errno); !ok {
		if why == "" {
			return nil
		}
		return f.broken(l, index, why)
	}
	if c.user == none {
		return f.broken(l, index, "bytes without a request")
	}
	if c.left > 0 {
		c.left -= int(n)
	} else {
		c.have += int(n)
		a, size, err := parseAnswer(c.buffer[:c.have])
		switch {
		case err != nil:
			return f.broken(l, index, err.Error())
		case size == 0 && c.have == len(c.buffer):
			return f.broken(l, index, "a head is too long")
		case size == 0:
			return nil
		case string(a.status) != "200":
			f.fail("status " + string(a.status))
		}
		c.left, c.last = size-c.have, a.last
	}
	switch {
	case c.left < 0:
		return f.broken(l, index, "bytes after the answer")
	case c.left > 0:
		return nil
	}
	if t := now(); t >= l.begin && t < l.end {
		if f.kind(index) == changes {
			f.flooded.Changes++
		} else {
			f.flooded.Reads++
		}
	}
	c.user = none
	if c.last {
		return f.broken(l, index, "")
	}
	f.free[f.kind(index)] = append(f.free[f.kind(index)], c)
	return nil
}

// broken replaces a connection. It is an error when a request was in flight.
func (f *flood) broken(l *load, index int, why string) error {
	c := f.conns[index]
	syscall.Close(c.fd)
	if c.user != none || c.last {
		f.free[f.kind(index)] = append(f.free[f.kind(index)], c)
	}
	if c.user != none {
		f.fail(why)
	}
	c.user, c.last, c.left = none, false, 0
	if err := l.connectTo(f.Addr, c, len(l.conns)+index); err != nil {
		return fmt.Errorf("the flood's %w", err)
	}
	return nil
}

func (f *flood) fail(kind string) {
	f.Errors++
	f.ErrorKinds[kind]++
}
