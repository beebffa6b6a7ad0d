// Checks what vram-residency signs and publishes with stock code: golang.org/x/mod/sumdb/note and tlog.
//
//	stock note FILE VKEY...               opens a signed note; prints its text and how many signatures verified
//	stock sign KEYFILE                    signs the text on stdin with a private key in Go's form
//	stock tiles DIR OLD,... VKEY...       every entry's inclusion, every tile, consistency with each old size
//	stock inclusion PROOF LINE VKEY       a C2SP tlog-proof of the entry in the file LINE
//	stock consistency PROOF ROOT VKEY     a consistency proof from the base64 root of the old size
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(command string, args []string) error {
	switch command {
	case "note":
		return openNote(args[0], args[1:])
	case "sign":
		return signNote(args[0])
	case "tiles":
		return checkTiles(args[0], strings.Split(args[1], ","), args[2:])
	case "inclusion":
		return checkInclusion(args[0], args[1], args[2])
	case "consistency":
		return checkConsistency(args[0], args[1], args[2])
	}
	return fmt.Errorf("unknown command %q", command)
}

func openNote(file string, vkeys []string) error {
	message, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	opened, err := open(message, vkeys)
	if err != nil {
		return err
	}
	fmt.Printf("%d verified, %d unverified\n%s", len(opened.Sigs), len(opened.UnverifiedSigs), opened.Text)
	return nil
}

func signNote(keyFile string) error {
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	signer, err := note.NewSigner(strings.TrimSpace(string(key)))
	if err != nil {
		return err
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, signer)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(signed)
	return err
}

func open(message []byte, vkeys []string) (*note.Note, error) {
	var verifiers []note.Verifier
	for _, vkey := range vkeys {
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			return nil, err
		}
		verifiers = append(verifiers, verifier)
	}
	return note.Open(message, note.VerifierList(verifiers...))
}

// openCheckpoint returns the tree that a signed checkpoint (C2SP tlog-checkpoint) names.
func openCheckpoint(message []byte, vkeys []string) (tlog.Tree, error) {
	opened, err := open(message, vkeys)
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil {
		return tlog.Tree{}, err
	}
	root, err := tlog.ParseHash(lines[2])
	return tlog.Tree{N: size, Hash: root}, err
}

// tiles reads tiles as C2SP tlog-tiles lays them out: like Go's, without the height in the path.
type tiles struct{ dir string }

func (t tiles) Height() int { return tileHeight }

func (t tiles) ReadTiles(wanted []tlog.Tile) ([][]byte, error) {
	var found [][]byte
	for _, tile := range wanted {
		path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
		data, err := os.ReadFile(filepath.Join(t.dir, path))
		if err != nil {
			return nil, err
		}
		found = append(found, data)
	}
	return found, nil
}

func (t tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// entries returns what a bundle of entries holds: each behind its length, two bytes, big-endian.
func (t tiles) entries(number int64, width int) ([][]byte, error) {
	tile := tlog.Tile{H: tileHeight, L: 0, N: number, W: width}
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/0/", tileHeight), "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(t.dir, path))
	if err != nil {
		return nil, err
	}
	var found [][]byte
	for len(data) >= 2 {
		end := 2 + int(binary.BigEndian.Uint16(data))
		if end > len(data) {
			return nil, fmt.Errorf("%s: an entry is cut", path)
		}
		found, data = append(found, data[2:end]), data[end:]
	}
	if len(data) != 0 || len(found) != width {
		return nil, fmt.Errorf("%s: %d entries, not %d", path, len(found), width)
	}
	return found, nil
}

func checkTiles(dir string, oldSizes, vkeys []string) error {
	message, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return err
	}
	tree, err := openCheckpoint(message, vkeys)
	if err != nil {
		return err
	}
	published := tiles{dir}
	// Reads tiles and refuses those that do not hash to the signed root.
	hashes := tlog.TileHashReader(tree, published)
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil || root != tree.Hash {
		return fmt.Errorf("root %v, not %v: %v", root, tree.Hash, err)
	}
	if err := checkEntries(published, tree, hashes); err != nil {
		return err
	}
	for _, text := range oldSizes {
		oldSize, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}
		oldRoot, err := tlog.TreeHash(oldSize, hashes)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(tree.N, oldSize, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, tree.N, tree.Hash, oldSize, oldRoot); err != nil {
			return err
		}
	}
	fmt.Printf("%d entries, %d old sizes\n", tree.N, len(oldSizes))
	return nil
}

func checkEntries(published tiles, tree tlog.Tree, hashes tlog.HashReader) error {
	for first := int64(0); first < tree.N; first += 1 << tileHeight {
		width := int(tree.N - first)
		if width > 1<<tileHeight {
			width = 1 << tileHeight
		}
		entries, err := published.entries(first>>tileHeight, width)
		if err != nil {
			return err
		}
		for offset, entry := range entries {
			index := first + int64(offset)
			proof, err := tlog.ProveRecord(tree.N, index, hashes)
			if err != nil {
				return err
			}
			leaf := tlog.RecordHash(entry)
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf); err != nil {
				return fmt.Errorf("entry %d: %v", index, err)
			}
		}
	}
	return nil
}

// readProof splits a proof into the lines before its checkpoint and the checkpoint.
func readProof(file string, vkey string) ([]string, tlog.Tree, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, tlog.Tree{}, err
	}
	head, message, found := bytes.Cut(data, []byte("\n\n"))
	if !found {
		return nil, tlog.Tree{}, fmt.Errorf("%s: no checkpoint", file)
	}
	tree, err := openCheckpoint(message, []string{vkey})
	return strings.Split(string(head), "\n"), tree, err
}

func parseHashes(lines []string) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, line := range lines {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

func checkInclusion(file, lineFile, vkey string) error {
	lines, tree, err := readProof(file, vkey)
	if err != nil {
		return err
	}
	if lines[0] != "c2sp.org/tlog-proof@v1" {
		return fmt.Errorf("%s: not a tlog-proof", file)
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[1], "index "), 10, 64)
	if err != nil {
		return err
	}
	hashes, err := parseHashes(lines[2:])
	if err != nil {
		return err
	}
	entry, err := os.ReadFile(lineFile)
	if err != nil {
		return err
	}
	leaf := tlog.RecordHash(bytes.TrimSuffix(entry, []byte("\n")))
	return tlog.CheckRecord(tlog.RecordProof(hashes), tree.N, tree.Hash, index, leaf)
}

func checkConsistency(file, oldRoot, vkey string) error {
	lines, tree, err := readProof(file, vkey)
	if err != nil {
		return err
	}
	oldSize, err := strconv.ParseInt(strings.TrimPrefix(lines[0], "old "), 10, 64)
	if err != nil {
		return err
	}
	hashes, err := parseHashes(lines[1:])
	if err != nil {
		return err
	}
	root, err := tlog.ParseHash(oldRoot)
	if err != nil {
		return err
	}
	return tlog.CheckTree(tlog.TreeProof(hashes), tree.N, tree.Hash, oldSize, root)
}
