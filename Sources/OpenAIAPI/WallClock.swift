import Glibc

/// Whole seconds since 1970 UTC, for `created`.
func secondsSince1970() -> Int {
    time(nil)
}
