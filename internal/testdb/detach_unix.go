//go:build unix

package testdb

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// detach prepares cmd to work in dir out of reach of a Ctrl-C in the terminal,
// which it must survive to clean up, and as an unprivileged user if we are
// root, as whom PostgreSQL refuses to run.
func detach(cmd *exec.Cmd, dir string) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid, err := unprivileged()
	if err != nil {
		return err
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return fmt.Errorf("hand over directory: %w", err)
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uid, Gid: gid}
	return nil
}

// unprivileged returns the ids of the user to run PostgreSQL as.
func unprivileged() (uid, gid uint32, err error) {
	account, err := user.Lookup("postgres")
	if err != nil {
		account, err = user.Lookup("nobody")
	}
	if err != nil {
		return 0, 0, fmt.Errorf("%w: no unprivileged user: %w", errNotInstalled, err)
	}
	if uid, err = parseID(account.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = parseID(account.Gid)
	return uid, gid, err
}

func parseID(s string) (uint32, error) {
	id, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("user or group id: %w", err)
	}
	return uint32(id), nil
}
