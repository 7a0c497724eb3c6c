package login

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the database driver

	"gauntlet/nodes/identity"
	"gauntlet/nodes/membership"
)

//go:embed migrations/*.sql
var migrations embed.FS

// databaseName is the file of the accounts in the node's folder.
const databaseName = "accounts.sqlite"

// ErrTaken is for a user name that exists already.
var ErrTaken = errors.New("user name is taken")

// ErrCredentials is for an unknown user as well as for a wrong password, so
// that nobody can tell the two apart.
var ErrCredentials = errors.New("wrong user name or password")

// Accounts are the users, in an SQLite database.
type Accounts struct {
	db     *sql.DB
	hasher *hasher
	decoy  string // checked for unknown users, so that they take as long
}

// OpenAccounts opens the database in dir and brings its schema up to date.
func OpenAccounts(ctx context.Context, dir string) (*Accounts, error) {
	path := filepath.Join(dir, databaseName)
	// SQLite gives its other files the mode of this one.
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open accounts: %w", err)
	}
	file.Close()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)&_pragma=journal_mode(wal)")
	if err != nil {
		return nil, fmt.Errorf("open accounts %s: %w", path, err)
	}
	db.SetMaxOpenConns(1) // SQLite has one writer; reads here are short
	a := &Accounts{db: db, hasher: newHasher()}
	if err := a.migrate(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("open accounts %s: %w", path, err)
	}
	if a.decoy, err = a.hasher.hash(ctx, "nobody's password"); err != nil {
		db.Close()
		return nil, fmt.Errorf("open accounts %s: %w", path, err)
	}
	return a, nil
}

func (a *Accounts) migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, a.db, files)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate: %w", err)
	}
	return nil
}

// Close closes the database.
func (a *Accounts) Close() error { return a.db.Close() }

// Create adds a user. The error is [ErrTaken] for a name that exists.
func (a *Accounts) Create(ctx context.Context, user, password string) error {
	if err := identity.CheckName(user); err != nil {
		return fmt.Errorf("create account: %w", err)
	}
	hash, err := a.hasher.hash(ctx, password)
	if err != nil {
		return fmt.Errorf("create account %s: %w", user, err)
	}
	res, err := a.db.ExecContext(ctx, `INSERT INTO accounts (name, password, created) VALUES (?, ?, ?)
		ON CONFLICT (name) DO NOTHING`, membership.Normal(user), hash, time.Now().Unix())
	if err != nil {
		return fmt.Errorf("create account %s: %w", user, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("create account %s: %w", user, errors.Join(ErrTaken, err))
	}
	return nil
}

// Check says whether user and password belong together; if not, the error is
// [ErrCredentials].
func (a *Accounts) Check(ctx context.Context, user, password string) error {
	var hash string
	err := a.db.QueryRowContext(ctx, `SELECT password FROM accounts WHERE name = ?`, membership.Normal(user)).Scan(&hash)
	known := err == nil
	switch {
	case errors.Is(err, sql.ErrNoRows):
		hash = a.decoy
	case err != nil:
		return fmt.Errorf("check account: %w", err)
	}
	ok, err := a.hasher.verify(ctx, hash, password)
	if err != nil {
		return fmt.Errorf("check account: %w", err)
	}
	if !ok || !known {
		return ErrCredentials
	}
	return nil
}
