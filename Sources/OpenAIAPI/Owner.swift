/// Whose objects a request sees.
package enum Owner {
    /// Everybody's, as long as there are no keys.
    package static let local = "local"
}
