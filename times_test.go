package hermes_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gorm.io/gorm"

	"github.com/hermeshttp/hermes"
)

// moments are times in order, in zones that would disorder their texts: over the hour that daylight saving repeats, and
// with fractions of every length.
func moments(t *testing.T) []time.Time {
	t.Helper()
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	kiritimati := time.FixedZone("+14", 14*3600)
	westward := time.FixedZone("-11:30", -(11*3600 + 1800))
	second := time.Date(2026, 10, 25, 2, 30, 0, 0, berlin) // summer time, an hour before the same again
	return []time.Time{
		time.Date(1969, 12, 31, 23, 59, 59, 999999000, time.UTC),
		second.Add(-time.Microsecond).In(kiritimati),
		second,
		second.Add(time.Microsecond).In(westward),
		second.Add(100 * time.Microsecond).UTC(),
		second.Add(time.Millisecond).In(kiritimati),
		second.Add(10 * time.Millisecond),
		second.Add(11 * time.Millisecond).In(westward),
		second.Add(100 * time.Millisecond).UTC(),
		second.Add(999999 * time.Microsecond).In(kiritimati),
		second.Add(time.Second),
		second.Add(30 * time.Minute).In(westward),
		second.Add(time.Hour), // 02:30 again, of winter time
		second.Add(time.Hour + time.Millisecond).In(kiritimati),
		time.Date(9999, 1, 1, 0, 0, 0, 0, westward),
	}
}

func TestTimesAreInOrderWhateverTheirZone(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		all := moments(t)
		var want []string
		for i, moment := range all {
			id := fmt.Sprintf("%02d", i)
			want = append(want, id)
			saved(t, c, func(m *hermes.FailedMessage) {
				m.ID, m.CreatedAt, m.UpdatedAt, m.NextAttemptAt = id, moment, moment, &moment
			})
		}
		for _, order := range []hermes.Order{hermes.OrderByCreated, hermes.OrderByUpdated, hermes.OrderByNextAttempt} {
			assert.Equal(t, want, listed(t, c, hermes.Filter{}, hermes.ListOptions{OrderBy: order, Ascending: true, Limit: 2}))
		}
		for i, moment := range all {
			m := row(t, c, want[i])
			assert.True(t, moment.Equal(m.CreatedAt) && moment.Equal(m.UpdatedAt) && moment.Equal(*m.NextAttemptAt))
			assert.EqualValues(t, i, count(t, c, hermes.Filter{CreatedBefore: moment}), moment)
			assert.EqualValues(t, len(all)-i, count(t, c, hermes.Filter{CreatedAfter: moment}), moment)
			assert.EqualValues(t, len(all)-i, count(t, c, hermes.Filter{UpdatedAfter: moment}), moment)

			// The same as users write it, with the time in UTC.
			var got []hermes.FailedMessage
			require.NoError(t, db.Where("created_at < ?", moment.UTC()).Find(&got).Error)
			assert.Len(t, got, i)
			require.NoError(t, db.Where("created_at = ?", m.CreatedAt).Find(&got).Error)
			assert.Len(t, got, 1)
		}
		due := idsOf(gather(t, c, hermes.GatherOptions{}))
		past := slices.IndexFunc(all, func(m time.Time) bool { return m.After(time.Now()) })
		assert.Equal(t, want[:past], due)
	})
}

// TestTimesOfNanosecondsAndTimesOfTheDatabaseCompare: a time that has more digits than the column is not lost behind
// its own row.
func TestTimesOfNanosecondsAndTimesOfTheDatabaseCompare(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, _ *gorm.DB) {
		ctx := context.Background()
		exact := time.Date(2026, 3, 1, 0, 0, 0, 123456789, time.UTC)
		for i := range 5 {
			saved(t, c, func(m *hermes.FailedMessage) {
				m.ID, m.CreatedAt = fmt.Sprint(i), exact.Add(time.Duration(i)*100)
			})
		}
		assert.Equal(t, []string{"0", "1", "2", "3", "4"},
			listed(t, c, hermes.Filter{}, hermes.ListOptions{Ascending: true, Limit: 1}))
		for i := range 5 {
			m := row(t, c, fmt.Sprint(i))
			assert.WithinDuration(t, exact.Add(time.Duration(i)*100), m.CreatedAt, time.Microsecond)
			n, err := c.Monitor().Count(ctx, hermes.Filter{IDs: []string{m.ID}, CreatedAfter: m.CreatedAt,
				CreatedBefore: m.CreatedAt.Add(time.Microsecond)})
			require.NoError(t, err)
			assert.EqualValues(t, 1, n)
		}
	})
}

// TestTheDatabasesClockWritesTimesThatCompare: what it writes sorts with what Go writes, to the last digit.
func TestTheDatabasesClockWritesTimesThatCompare(t *testing.T) {
	each(t, func(t *testing.T, c *hermes.Client, db *gorm.DB) {
		for range 30 { // some of these end in a zero
			m := saved(t, c)
			for op, want := range map[string]int64{"=": 1, "<": 0, ">": 0, "<=": 1, ">=": 1} {
				var n int64
				require.NoError(t, db.Model(m).Where("id = ? AND created_at "+op+" ?", m.ID, m.CreatedAt).Count(&n).Error)
				assert.Equal(t, want, n, "%s %v", op, m.CreatedAt)
			}
			before, after := m.CreatedAt.Add(-time.Microsecond), m.CreatedAt.Add(time.Microsecond)
			var n int64
			require.NoError(t, db.Model(m).Where("id = ? AND created_at > ? AND created_at < ?", m.ID, before, after).Count(&n).Error)
			assert.EqualValues(t, 1, n)
		}
	})
}
