/// How many sequences wait or run, and whose they are.
package struct QueueOccupancy: Sendable {
    package private(set) var total = 0
    package private(set) var byOwner: [String: Int] = [:]

    package init() {}

    /// - Parameter byOwner: no zeros.
    package init(byOwner: [String: Int]) {
        self.byOwner = byOwner
        total = byOwner.values.reduce(0, +)
    }

    package mutating func add(_ owner: String) {
        byOwner[owner, default: 0] += 1
        total += 1
    }

    package mutating func add(_ other: QueueOccupancy) {
        guard other.total > 0 else { return }
        byOwner.merge(other.byOwner, uniquingKeysWith: +)
        total += other.total
    }
}

/// The bound of the engine's queue: a number of places for everybody, and some more that only those can have who hold less than an equal share.
///
/// So one owner alone can fill the places and no more; whoever comes then still gets in, up to its share, as long as there are spare places.
package struct QueueBound: Sendable {
    /// For everybody: what runs and what waits.
    package var places: Int
    /// Beyond those, for owners that hold less than their share.
    package var spare: Int

    package init(places: Int, spare: Int) {
        self.places = places
        self.spare = spare
    }

    /// Whether one more sequence of `owner` may come.
    package func admits(_ owner: String, held: QueueOccupancy) -> Bool {
        if held.total < places { return true }
        let own = held.byOwner[owner] ?? 0
        let owners = held.byOwner.count + (own == 0 ? 1 : 0)
        return held.total < places + spare && own < places / owners
    }
}
