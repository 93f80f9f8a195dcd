package virgl

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ebitengine/purego"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/gpubroker/gpubroker/virgl/dl"
)

// A guest can make the library complain with every command, so lines are limited.
const (
	logBurst   = 50          // lines
	logPer     = time.Second // per this time
	logLineMax = 1024        // bytes of one line
)

// libLogger writes the library's lines to zap. The library has one log callback
// per process, which may run on its own threads.
type libLogger struct {
	zap *zap.Logger

	mu      sync.Mutex
	start   time.Time // guarded by mu; of the present period
	lines   int       // guarded by mu; in the present period
	dropped int       // guarded by mu
}

// logger is the logger of the present renderer, nil between renderers.
var logger atomic.Pointer[libLogger]

// Levels of enum virgl_log_level_flags (virglrenderer.h, since 1.0).
var logLevels = [...]zapcore.Level{zap.DebugLevel, zap.InfoLevel, zap.WarnLevel, zap.ErrorLevel}

// harmless is what 1.1 to 1.3 call an error when a fence's turn came before its
// creator could export it (vrend_renderer_create_fence). It happens all the time.
var harmless = []string{"virgl_fence_set_fd: failed err=-9", "failed to export fence sync object"}

func (l *libLogger) line(level zapcore.Level, text string) {
	text = strings.TrimRight(text, "\n")
	if slices.ContainsFunc(harmless, func(h string) bool { return strings.Contains(text, h) }) {
		level = zap.DebugLevel
	}
	if text == "" || !l.zap.Core().Enabled(level) {
		return
	}
	l.mu.Lock()
	now := time.Now()
	dropped := 0
	if now.Sub(l.start) > logPer {
		l.start, l.lines = now, 0
		dropped, l.dropped = l.dropped, 0
	}
	l.lines++
	over := l.lines > logBurst
	if over {
		l.dropped++
	}
	l.mu.Unlock()
	if dropped > 0 {
		l.zap.Warn("lines of libvirglrenderer left out", zap.Int("lines", dropped))
	}
	if !over {
		l.zap.Log(level, text)
	}
}

var logCallback = sync.OnceValue(func() uintptr { return purego.NewCallback(onLog) })
var debugCallback = sync.OnceValue(func() uintptr { return purego.NewCallback(onDebug) })

// onLog is a virgl_log_callback_type (since 1.0).
func onLog(level int32, text, _ uintptr) {
	defer swallowPanic()
	l := logger.Load()
	if l == nil {
		return
	}
	z := zap.ErrorLevel
	if level >= 0 && int(level) < len(logLevels) {
		z = logLevels[level]
	}
	l.line(z, dl.String(text, logLineMax))
}

// onDebug is a virgl_debug_callback_type, for libraries before 1.0. It carries no
// level; whatever sounds like a failure becomes a warning.
func onDebug(format, vaList uintptr) {
	defer swallowPanic()
	l := logger.Load()
	if l == nil {
		return
	}
	text := dl.Format(format, vaList, logLineMax)
	l.line(guessLevel(text), text)
}

var failureWords = []string{"error", "fail", "illegal", "invalid", "unable", "not supported"}

func guessLevel(text string) zapcore.Level {
	low := strings.ToLower(text)
	for _, w := range failureWords {
		if strings.Contains(low, w) {
			return zap.WarnLevel
		}
	}
	return zap.DebugLevel
}

// swallowPanic keeps a panic from unwinding through C frames.
func swallowPanic() {
	if r := recover(); r != nil {
		logPanic(r)
	}
}
