/// The filters on lists and dictionaries.
extension TemplateInterpreter {
    func filterSequence(_ name: String, _ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        switch name {
        case "first":
            if case .generator(let generator) = value { return generator.next() ?? .missing("no first item, the sequence was empty") }
            return try elements(of: value).first ?? .missing("no first item, the sequence was empty")
        case "last":
            if case .generator = value { throw failure(.invalidOperation, "the filter 'last' needs a list; put 'list' before it") }
            return try elements(of: value).last ?? .missing("no last item, the sequence was empty")
        case "join":
            let values = try bind(arguments, to: ["d", "attribute"], of: "join")
            let separator = try values[0].map { value throws(TemplateError) in try text(of: value) } ?? TemplateText()
            var parts: [TemplateText] = []
            var size = 0
            for element in try elements(of: value) {
                let part = try text(of: try self.value(at: values[1], of: element))
                size += part.byteCount + separator.byteCount
                parts.append(part)
            }
            try spend(bytes: size)
            try spend(parts.count)
            return .text(TemplateText.joined(parts, separator: separator))
        case "reverse":
            if case .text(let text) = value {
                try spend(text.byteCount)
                return .text(text.sliced(TemplateSlice(step: -1)))
            }
            if case .generator = value { return .list(try elements(of: value).reversed()) }
            let elements = try elements(of: value)
            try spend(elements.count)
            return .generator(TemplateGenerator(elements.reversed(), name: "reverse"))
        case "sum":
            let values = try bind(arguments, to: ["attribute", "start"], of: "sum")
            var total = values[1] ?? .integer(0)
            for element in try elements(of: value) {
                try spend(1)
                total = try apply(.add, total, try self.value(at: values[0], of: element))
            }
            return total
        case "min", "max": return try extreme(name, value, arguments)
        case "sort": return .list(try sort(try elements(of: value), arguments))
        case "dictsort": return try sortDictionary(value, arguments)
        case "unique":
            let values = try bind(arguments, to: ["case_sensitive", "attribute"], of: "unique")
            var seen: Set<TemplateDictionary.Key> = []
            var result: [TemplateObject] = []
            for element in try elements(of: value) {
                try spend(1)
                let key = try self.key(sortingKey(try self.value(at: values[1], of: element), values[0]))
                if seen.insert(key).inserted { result.append(element) }
            }
            return .generator(TemplateGenerator(result, name: "sync_do_unique"))
        case "batch":
            let values = try bind(arguments, to: ["linecount", "fill_with"], required: 1, of: "batch")
            guard let size = try integer(values[0], "linecount"), size > 0 else {
                throw failure(.invalidOperation, "the filter 'batch' needs a positive count")
            }
            return try batch(try elements(of: value), size: size, fill: values[1])
        case "slice":
            let values = try bind(arguments, to: ["slices", "fill_with"], required: 1, of: "slice")
            guard let count = try integer(values[0], "slices"), count > 0 else {
                throw failure(.invalidOperation, "the filter 'slice' needs a positive count")
            }
            return try cut(try elements(of: value), into: count, fill: values[1])
        case "attr":
            let values = try bind(arguments, to: ["name"], required: 1, of: "attr")
            guard let name = try text(values[0], "name")?.string else { throw failure(.invalidOperation, "the filter 'attr' needs a name") }
            if case .dictionary = value, !Self.dictionaryMethods.contains(name) {
                return .undefined(TemplateUndefined(.attribute(of: value.ownerName, name)))
            }
            return try attribute(name, of: value)
        default:
            throw failure(.unsupported, "there is no filter '\(name)'")
        }
    }

    // MARK: One by one

    func filterEach(_ name: String, _ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        var result: [TemplateObject] = []
        // Jinja asks for the value's truth before it looks at anything else.
        guard value.isTrue else { return .generator(TemplateGenerator([], name: name)) }
        var inner = arguments
        if name == "map" {
            if arguments.positional.isEmpty, let attribute = arguments.named.first(where: { $0.name == "attribute" })?.value {
                let fallback = arguments.named.first { $0.name == "default" }?.value
                for element in try elements(of: value) {
                    try spend(1)
                    result.append(try self.value(at: attribute, of: element, fallback: fallback))
                }
                return .generator(TemplateGenerator(result, name: "sync_do_map"))
            }
            guard let filterName = try text(inner.positional.first, "filter")?.string else {
                throw failure(.invalidOperation, "the filter 'map' needs the name of a filter, or 'attribute='")
            }
            inner.positional.removeFirst()
            try enter()
            defer { leave() }
            for element in try elements(of: value) {
                try spend(1)
                result.append(try filter(filterName, element, inner))
            }
            return try checkNesting(.generator(TemplateGenerator(result, name: "sync_do_map")))
        }
        var attribute: TemplateObject?
        if name.hasSuffix("attr") {
            guard !inner.positional.isEmpty else { throw failure(.invalidOperation, "the filter '\(name)' needs the name of an attribute") }
            attribute = inner.positional.removeFirst()
        }
        var testName: String?
        if !inner.positional.isEmpty { testName = try text(inner.positional.removeFirst(), "test")?.string }
        let keeps = name.hasPrefix("select")
        for element in try elements(of: value) {
            try spend(1)
            let subject = try self.value(at: attribute, of: element)
            let passes = if let testName { try test(testName, subject, inner) } else { subject.isTrue }
            if passes == keeps { result.append(element) }
        }
        return .generator(TemplateGenerator(result, name: "select_or_reject"))
    }

    /// The value at a path such as "function.name" or 0 inside of an element; the element itself without path.
    private func value(at path: TemplateObject?, of element: TemplateObject, fallback: TemplateObject? = nil) throws(TemplateError) -> TemplateObject {
        switch path {
        case nil, .some(.none): return element
        case .text(let text):
            var value = element
            for part in text.split(by: ".") {
                let isIndex = part.allScalars { $0.value >= 0x30 && $0.value <= 0x39 }
                value = try item(isIndex ? .integer(part.pythonInteger(base: 10) ?? .max) : .text(part), of: value)
                if value.isUndefined, let fallback { value = fallback }
            }
            return value
        case .some(let key):
            let value = try item(key, of: element)
            if value.isUndefined, let fallback { return fallback }
            return value
        }
    }

    // MARK: Order

    private func sortingKey(_ value: TemplateObject, _ isCaseSensitive: TemplateObject?) -> TemplateObject {
        if isCaseSensitive?.isTrue != true, case .text(let text) = value { return .text(text.lowercased) }
        return value
    }

    private func extreme(_ name: String, _ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        let values = try bind(arguments, to: ["case_sensitive", "attribute"], of: name)
        var best: (element: TemplateObject, key: TemplateObject)?
        for element in try elements(of: value) {
            try spend(1)
            let key = sortingKey(try self.value(at: values[1], of: element), values[0])
            if let current = best {
                guard name == "min" ? try isLess(key, current.key) : try isLess(current.key, key) else { continue }
            }
            best = (element, key)
        }
        return best?.element ?? .missing("no smallest or largest item, the sequence was empty")
    }

    private func sort(_ elements: [TemplateObject], _ arguments: TemplateArguments) throws(TemplateError) -> [TemplateObject] {
        let values = try bind(arguments, to: ["reverse", "case_sensitive", "attribute"], of: "sort")
        var paths: [TemplateObject?] = [values[2]]
        if case .text(let text) = values[2] { paths = text.split(by: ",").map { .text($0) } }
        var keyed: [(key: TemplateObject, element: TemplateObject)] = []
        for element in elements {
            var keys: [TemplateObject] = []
            for path in paths { keys.append(sortingKey(try value(at: path, of: element), values[1])) }
            keyed.append((.tuple(keys), element))
        }
        return try sorted(keyed, isReversed: values[0]?.isTrue == true)
    }

    private func sortDictionary(_ value: TemplateObject, _ arguments: TemplateArguments) throws(TemplateError) -> TemplateObject {
        let values = try bind(arguments, to: ["case_sensitive", "by", "reverse"], of: "dictsort")
        guard case .dictionary(let dictionary) = value else {
            if case .undefined(let undefined) = value { throw failure(.undefined, undefined.message) }
            throw failure(.invalidOperation, "the filter 'dictsort' needs a dictionary, found \(value.typeName)")
        }
        let by = try text(values[1], "by")?.string ?? "key"
        guard by == "key" || by == "value" else { throw failure(.invalidOperation, "the filter 'dictsort' sorts by \"key\" or \"value\"") }
        let keyed = dictionary.entries.map { entry in
            (key: sortingKey(by == "key" ? entry.key : entry.value, values[0]), element: TemplateObject.tuple([entry.key, entry.value]))
        }
        return try checkNesting(.list(try sorted(keyed, isReversed: values[2]?.isTrue == true)))
    }

    /// A stable merge sort, since the comparison may fail. Reversed, equal elements keep their order, as in Python.
    private func sorted(_ keyed: [(key: TemplateObject, element: TemplateObject)], isReversed: Bool) throws(TemplateError) -> [TemplateObject] {
        var source = keyed
        var width = 1
        while width < source.count {
            try spend(source.count)
            var merged: [(key: TemplateObject, element: TemplateObject)] = []
            merged.reserveCapacity(source.count)
            for start in stride(from: 0, to: source.count, by: 2 * width) {
                let middle = min(start + width, source.count)
                let end = min(start + 2 * width, source.count)
                var (left, right) = (start, middle)
                while left < middle, right < end {
                    let takesRight = isReversed
                        ? try isLess(source[left].key, source[right].key) : try isLess(source[right].key, source[left].key)
                    merged.append(source[takesRight ? right : left])
                    if takesRight { right += 1 } else { left += 1 }
                }
                merged += source[left..<middle]
                merged += source[right..<end]
            }
            source = merged
            width *= 2
        }
        return source.map(\.element)
    }

    // MARK: Groups

    private func batch(_ elements: [TemplateObject], size: Int, fill: TemplateObject?) throws(TemplateError) -> TemplateObject {
        var batches: [TemplateObject] = []
        for start in stride(from: 0, to: elements.count, by: size) {
            var batch = Array(elements[start..<min(start + min(size, elements.count), elements.count)])
            try spend(batch.count)
            if batch.count < size, let fill, !isNone(fill) {
                try spend(size)
                batch += repeatElement(fill, count: size - batch.count)
            }
            batches.append(.list(batch))
        }
        return try checkNesting(.generator(TemplateGenerator(batches, name: "do_batch")))
    }

    private func cut(_ elements: [TemplateObject], into count: Int, fill: TemplateObject?) throws(TemplateError) -> TemplateObject {
        try spend(elements.count)
        try spend(count)
        let (size, extra) = elements.count.quotientAndRemainder(dividingBy: count)
        var slices: [TemplateObject] = []
        var start = 0
        for number in 0..<count {
            let end = start + size + (number < extra ? 1 : 0)
            var slice = Array(elements[start..<end])
            if number >= extra, let fill, !isNone(fill) { slice.append(fill) }
            slices.append(.list(slice))
            start = end
        }
        return try checkNesting(.generator(TemplateGenerator(slices, name: "sync_do_slice")))
    }

    private func isNone(_ value: TemplateObject) -> Bool {
        if case .none = value { true } else { false }
    }
}
