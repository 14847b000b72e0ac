package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"runtime"

	"github.com/gin-gonic/gin"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8080", "address to serve on")
	secure := flag.String("tls-listen", "", "address to serve TLS on (none: no TLS)")
	certificate := flag.String("certificate", "", "PEM file of its certificate")
	key := flag.String("key", "", "PEM file of its private key")
	stable := flag.String("stable", "", "URL of the stable release")
	canary := flag.String("canary", "", "URL of the canary release")
	users := flag.String("users", "", "file with one id a line: users that get the canary")
	accessLogPath := flag.String("access-log", "", "file for one JSON line a request (none: no log)")
	pooled := flag.Bool("buffer-pool", false, "lend ReverseProxy its copy buffers from a pool")
	version := flag.Bool("version", false, "print versions and exit")
	flag.Parse()
	if *version {
		fmt.Printf("Gin %s, %s\n", gin.Version, runtime.Version())
		return
	}
	handler, err := makeHandler(*stable, *canary, *users, *accessLogPath, *pooled)
	if err != nil {
		log.Fatal(err)
	}
	if *secure != "" {
		go func() {
			server := &http.Server{Addr: *secure, Handler: handler}
			log.Fatal(server.ListenAndServeTLS(*certificate, *key))
		}()
	}
	log.Fatal((&http.Server{Addr: *listen, Handler: handler}).ListenAndServe())
}

func makeHandler(stable, canary, users, accessLogPath string, pooled bool) (http.Handler, error) {
	stableURL, err := url.Parse(stable)
	if err != nil {
		return nil, err
	}
	canaryURL, err := url.Parse(canary)
	if err != nil {
		return nil, err
	}
	listed, err := readUsers(users)
	if err != nil {
		return nil, err
	}
	var accessLog *accessLog
	if accessLogPath != "" {
		if accessLog, err = openAccessLog(accessLogPath); err != nil {
			return nil, err
		}
	}
	var pool httputil.BufferPool
	if pooled {
		pool = newBufferPool()
	}
	return newHandler(newGateway(listed, stableURL, canaryURL, pool), accessLog), nil
}

func readUsers(path string) (map[string]struct{}, error) {
	listed := map[string]struct{}{}
	if path == "" {
		return listed, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		listed[lines.Text()] = struct{}{}
	}
	return listed, lines.Err()
}
