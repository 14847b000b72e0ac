package main

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

type answer struct {
	status []byte
	body   []byte // as much of it as has arrived
	length int    // of the body
	last   bool   // the server closes
}

// begins is how much of a body tells the release that it is from.
const begins = len("stable")

// readable is true once there is enough to check.
func (a answer) readable() bool { return len(a.body) >= min(begins, a.length) }

// parseAnswer returns size 0 while the head is incomplete, or a body in chunks, then the size of head and body.
func parseAnswer(b []byte) (a answer, size int, err error) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		return a, 0, nil
	}
	if end < len("HTTP/1.1 200") || !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) {
		return a, 0, errors.New("no HTTP/1.1 status line")
	}
	a.status = b[9:12]
	length, chunks := -1, false
	for head := b[:end]; len(head) > 0; {
		line, rest, _ := bytes.Cut(head, []byte("\r\n"))
		head = rest
		if value, ok := header(line, "content-length:"); ok {
			if length, err = strconv.Atoi(string(value)); err != nil {
				return a, 0, errors.New("unreadable Content-Length")
			}
		} else if value, ok := header(line, "transfer-encoding:"); ok {
			chunks = bytes.EqualFold(value, []byte("chunked"))
		} else if value, ok := header(line, "connection:"); ok {
			a.last = bytes.EqualFold(value, []byte("close"))
		}
	}
	if chunks {
		body, length, size, err := parseChunks(b[end+4:])
		if size > 0 {
			a.body, a.length, size = body, length, end+4+size
		}
		return a, size, err
	}
	if length < 0 {
		return a, 0, errors.New("no Content-Length")
	}
	size = end + 4 + length
	a.body, a.length = b[end+4:min(size, len(b))], length
	return a, size, nil
}

// parseChunks yields the first chunk, the length of all and their size with what is around them, which is 0 while some are missing.
func parseChunks(b []byte) (first []byte, length, size int, err error) {
	for {
		end := bytes.Index(b[size:], []byte("\r\n"))
		if end < 0 {
			return nil, 0, 0, nil
		}
		n, err := strconv.ParseUint(string(b[size:size+end]), 16, 31)
		if err != nil {
			return nil, 0, 0, errors.New("unreadable chunk size")
		}
		start := size + end + 2
		size = start + int(n) + 2
		if size > len(b) {
			return nil, 0, 0, nil
		}
		if n == 0 {
			return first, length, size, nil
		}
		if first == nil {
			first = b[start : start+int(n)]
		}
		length += int(n)
	}
}

func header(line []byte, name string) (value []byte, ok bool) {
	if len(line) < len(name) || line[0]|0x20 != name[0] || !bytes.EqualFold(line[:len(name)], []byte(name)) {
		return nil, false
	}
	return bytes.TrimSpace(line[len(name):]), true
}

func (l *load) check(index int, a answer) {
	if string(a.status) != "200" {
		l.fail("status " + string(a.status))
		return
	}
	if a.length != l.body {
		l.fail(fmt.Sprintf("a body of %d bytes", a.length))
		return
	}
	if !bytes.HasPrefix(a.body, []byte("stable")) && !bytes.HasPrefix(a.body, []byte("canary")) {
		l.fail("not an origin's body")
		return
	}
	if !l.routed {
		return
	}
	release := a.body[0]
	if l.users[index].listed && release != 'c' {
		l.fail("a listed user was not on canary")
	}
	if before := l.releases[index]; before != 0 && before != release {
		l.fail("a user changed release")
	}
	l.releases[index] = release
}
