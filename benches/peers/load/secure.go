package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// tlsTimeout ends a wait for an answer or a handshake that does not come.
const tlsTimeout = 5 * time.Second

// secured is the closed loop over TLS: a goroutine a connection, which is dearer than the loop over epoll but as simple as
// crypto/tls wants it. What the goroutines share is behind one lock.
type secured struct {
	*load
	sync.Mutex
	config *tls.Config
	ended  bool
}

func (l *load) runTLS() error {
	s := &secured{load: l, config: &tls.Config{
		InsecureSkipVerify: true, // the signature of the handshake is checked all the same
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{"http/1.1"},
		CurvePreferences:   []tls.CurveID{tls.X25519}, // the same for all: not each peer has the hybrids
	}}
	l.begin = now() + l.warmup.Nanoseconds()
	l.end = l.begin + l.duration.Nanoseconds()
	var connections sync.WaitGroup
	for range l.options.conns {
		connections.Go(s.keepAsking)
	}
	time.Sleep(l.warmup)
	s.note(&l.before)
	time.Sleep(l.duration)
	s.note(&l.after)
	connections.Wait()
	if l.errors > errorsMax {
		return fmt.Errorf("more than %d errors: %v", errorsMax, l.errorKinds)
	}
	return nil
}

// note takes the usage; the window is what lies between two of them.
func (s *secured) note(to *usage) {
	s.Lock()
	defer s.Unlock()
	*to = s.usage(now())
	s.ended = to == &s.after
}

func (s *secured) keepAsking() {
	buffer := make([]byte, readBufferBytes)
	for s.goesOn() {
		if err := s.connection(buffer); err != nil {
			s.Lock()
			s.fail(err.Error())
			s.Unlock()
		}
	}
}

func (s *secured) goesOn() bool {
	s.Lock()
	defer s.Unlock()
	return !s.ended && s.errors <= errorsMax
}

// connection asks until the connection or the window ends; with -fresh once.
func (s *secured) connection(buffer []byte) error {
	raw, err := net.DialTimeout("tcp", s.addr.String(), tlsTimeout)
	if err != nil {
		return err
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(tlsTimeout))
	conn := tls.Client(raw, s.config)
	if err := conn.Handshake(); err != nil {
		return err
	}
	s.Lock()
	if s.cipher == "" {
		s.cipher = tls.CipherSuiteName(conn.ConnectionState().CipherSuite)
	}
	s.Unlock()
	for s.goesOn() {
		raw.SetDeadline(time.Now().Add(tlsTimeout))
		last, err := s.ask(conn, buffer)
		if err != nil || last || s.fresh {
			return err
		}
	}
	return nil
}

func (s *secured) ask(conn net.Conn, buffer []byte) (last bool, err error) {
	s.Lock()
	user := s.takeUser()
	s.Unlock()
	if _, err := conn.Write(s.requests[user]); err != nil {
		return false, err
	}
	a, err := readAnswer(conn, buffer)
	if err != nil {
		return false, err
	}
	s.Lock()
	defer s.Unlock()
	s.check(user, a)
	if s.before.at != 0 && s.after.at == 0 {
		s.completed++
	}
	return a.last, nil
}

// readAnswer reads one answer that fits into the buffer.
func readAnswer(conn net.Conn, buffer []byte) (a answer, err error) {
	for have, size := 0, 0; ; {
		if have == len(buffer) {
			return a, errors.New("answer is too long")
		}
		n, err := conn.Read(buffer[have:])
		if err != nil && n == 0 {
			return a, fmt.Errorf("before the answer: %w", err)
		}
		have += n
		if a, size, err = parseAnswer(buffer[:have]); err != nil {
			return a, err
		}
		switch {
		case size > 0 && have == size:
			return a, nil
		case size > 0 && have > size:
			return a, errors.New("bytes after the answer")
		}
	}
}
