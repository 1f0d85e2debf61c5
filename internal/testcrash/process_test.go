package testcrash

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// process is a child process.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	ready chan struct{} // closed when it has begun
	there chan struct{} // closed when it is where to be killed
	ended chan struct{} // closed when it has ended and all it said was read
	err   error         // how it ended
	at    time.Time     // when
}

// start starts a child. What it says goes to the journal.
func start(spec childSpec, j *journal) (*process, error) {
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	p := &process{name: spec.Name, cmd: exec.Command(os.Args[0]),
		ready: make(chan struct{}), there: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stderr = os.Stderr
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	go p.listen(out, j)
	return p, nil
}

// listen reads what the process says, to its end.
func (p *process) listen(out io.Reader, j *journal) {
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		e, err := parseEvent(lines.Text())
		switch {
		case err != nil:
			j.problem("%s: %v", p.name, err)
		case e.kind == ready:
			close(p.ready)
		case e.kind == stopped:
			close(p.there)
		default:
			j.told(p.name, e)
		}
	}
	if err := lines.Err(); err != nil {
		j.problem("%s: %v", p.name, err)
	}
	p.err, p.at = p.cmd.Wait(), time.Now()
	j.died(p.name, p.at)
	close(p.ended)
}

// kill ends the process as nothing else does: it gets no chance to do anything about it.
func (p *process) kill() error {
	err := p.cmd.Process.Kill()
	<-p.ended
	return err
}

// end has the process end in order, and tells if it did.
func (p *process) end(timeout time.Duration) error {
	if err := p.stdin.Close(); err != nil {
		return err
	}
	select {
	case <-p.ended:
		return p.err
	case <-time.After(timeout):
		return fmt.Errorf("%s does not end: %w", p.name, p.kill())
	}
}
