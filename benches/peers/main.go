// The design of the Go original, rewritten for the comparison: a REST service that dials every port
// with net.DialTimeout from a pool with one goroutine per port, and treats every failure as a
// closed port.
//
// It listens on a port that the kernel chooses, and prints the address on stderr.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"
)

const dialTimeout = 2 * time.Second

type answer struct {
	FromPort  int    `json:"from_port"`
	ToPort    int    `json:"to_port"`
	Domain    string `json:"domain"`
	OpenPorts []int  `json:"open_ports"`
}

// scan dials all ports with one goroutine per port.
func scan(domain string, fromPort, toPort int) []int {
	ports := make(chan int)
	results := make(chan int)
	var workers sync.WaitGroup
	for worker := fromPort; worker <= toPort; worker++ {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for port := range ports {
				target := net.JoinHostPort(domain, strconv.Itoa(port))
				connection, err := net.DialTimeout("tcp", target, dialTimeout)
				if err != nil {
					results <- 0
					continue
				}
				connection.Close()
				results <- port
			}
		}()
	}
	go func() {
		for port := fromPort; port <= toPort; port++ {
			ports <- port
		}
		close(ports)
		workers.Wait()
		close(results)
	}()
	open := []int{}
	for port := range results {
		if port != 0 {
			open = append(open, port)
		}
	}
	sort.Ints(open)
	return open
}

func openPorts(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	domain := query.Get("domain")
	toPort, err := strconv.ParseUint(query.Get("toPort"), 10, 16)
	if domain == "" || err != nil {
		http.Error(w, "domain and toPort are needed", http.StatusBadRequest)
		return
	}
	fromPort, err := strconv.ParseUint(query.Get("fromPort"), 10, 16)
	if err != nil || fromPort == 0 {
		fromPort = 1
	}
	open := scan(domain, int(fromPort), int(toPort))
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer{int(fromPort), int(toPort), domain, open})
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "listening address=%s\n", listener.Addr())
	http.HandleFunc("/open-ports", openPorts)
	fmt.Fprintln(os.Stderr, http.Serve(listener, nil))
	os.Exit(1)
}
