// Command loadgen drives EST over mutual TLS and prints one JSON line of figures.
//
// It is written in Go, with the standard library only, because a generator in Python would eat
// the processor that it should leave to the server. CSRs are made before the clock starts.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"
)

type figures struct {
	Requests  int            `json:"requests"`
	Failed    int            `json:"failed"`
	Seconds   float64        `json:"seconds"`
	PerSecond float64        `json:"per_second"`
	P50Millis float64        `json:"p50_ms"`
	P99Millis float64        `json:"p99_ms"`
	Statuses  map[string]int `json:"statuses"`
}

func main() {
	url := flag.String("url", "", "where to POST")
	cert := flag.String("cert", "", "client certificate, PEM")
	key := flag.String("key", "", "client key, PEM")
	ca := flag.String("ca", "", "trust anchors of the server, PEM")
	count := flag.Int("n", 1000, "requests")
	workers := flag.Int("c", 16, "at once")
	keep := flag.Bool("keep", false, "keep connections (else a new one each)")
	prefix := flag.String("prefix", "", "device name prefix; empty: POST an empty body")
	expect := flag.Int("expect", 200, "status that counts as success")
	flag.Parse()

	config, err := tlsConfig(*cert, *key, *ca)
	if err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(2)
	}
	bodies := make([][]byte, *count)
	if *prefix != "" {
		if err := makeRequests(bodies, *prefix); err != nil {
			fmt.Fprintln(os.Stderr, "loadgen:", err)
			os.Exit(2)
		}
	}
	result := drive(*url, config, bodies, *workers, *keep, *expect)
	json.NewEncoder(os.Stdout).Encode(result)
}

func tlsConfig(cert, key, ca string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{
		RootCAs: roots,
		// The server names no acceptable CAs, so the pair is given whatever it asks.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &pair, nil
		},
	}, nil
}

// makeRequests fills bodies with base64 CSRs, each for a device and key of its own.
func makeRequests(bodies [][]byte, prefix string) error {
	for i := range bodies {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return err
		}
		template := &x509.CertificateRequest{
			Subject: pkix.Name{CommonName: fmt.Sprintf("%s-%d", prefix, i), Organization: []string{"YourOrg"}},
		}
		der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
		if err != nil {
			return err
		}
		bodies[i] = []byte(base64.StdEncoding.EncodeToString(der))
	}
	return nil
}

func drive(url string, config *tls.Config, bodies [][]byte, workers int, keep bool, expect int) figures {
	client := &http.Client{
		Timeout: 60 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:     config,
			DisableKeepAlives:   !keep,
			MaxIdleConnsPerHost: workers,
		},
	}
	var next atomic.Int64
	var mutex sync.Mutex
	var group sync.WaitGroup
	result := figures{Requests: len(bodies), Statuses: map[string]int{}}
	times := make([]float64, 0, len(bodies))

	start := time.Now()
	for w := 0; w < workers; w++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(bodies) {
					return
				}
				begun := time.Now()
				status, label := post(client, url, bodies[i])
				took := float64(time.Since(begun).Microseconds()) / 1000
				mutex.Lock()
				times = append(times, took)
				result.Statuses[label]++
				if status != expect {
					result.Failed++
				}
				mutex.Unlock()
			}
		}()
	}
	group.Wait()
	result.Seconds = time.Since(start).Seconds()
	result.PerSecond = float64(len(bodies)-result.Failed) / result.Seconds
	sort.Float64s(times)
	if len(times) > 0 {
		result.P50Millis = times[len(times)/2]
		result.P99Millis = times[len(times)*99/100]
	}
	return result
}

func post(client *http.Client, url string, body []byte) (int, string) {
	answer, err := client.Post(url, "application/pkcs10", bytes.NewReader(body))
	if err != nil {
		return 0, "error: " + err.Error()
	}
	defer answer.Body.Close()
	io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, fmt.Sprint(answer.StatusCode)
}
