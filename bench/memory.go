package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"
)

// memoryGrowth does something and tells by how many bytes the process' resident memory exceeded what it was before, at
// most. It looks ten times a second.
func memoryGrowth(do func() error) (int64, error) {
	debug.FreeOSMemory()
	before, err := residentMemory()
	if err != nil {
		return 0, err
	}
	done, highest := make(chan struct{}), make(chan int64)
	go func() { highest <- highestMemory(done) }()
	err = do()
	close(done)
	return <-highest - before, err
}

// highestMemory is the most resident memory that there was when it was looked at, until done is closed.
func highestMemory(done <-chan struct{}) (highest int64) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		now, _ := residentMemory() // it worked before
		highest = max(highest, now)
		select {
		case <-ticker.C:
		case <-done:
			return highest
		}
	}
}

// residentMemory is what Linux calls VmRSS, in bytes.
func residentMemory() (int64, error) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, errors.Join(errors.New("memory can be measured on Linux only"), err)
	}
	_, value, _ := strings.Cut(string(status), "VmRSS:")
	var kilobytes int64
	_, err = fmt.Sscanf(value, "%d kB", &kilobytes)
	return kilobytes * 1024, err
}
