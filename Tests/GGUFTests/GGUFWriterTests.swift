import GGUF
import Kernels
import Testing

@Suite struct GGUFWriterTests {
    /// The writer against the byte-by-byte builder of the parser's tests.
    @Test func everyValueTypeIsWritten() throws {
        let builder = GGUFBuilder.small().file()
        let header = try GGUFHeader(parsing: builder)
        var writer = GGUFWriter()
        for key in header.metadata.keys { writer.set(key, to: try #require(header.metadata[key])) }
        for tensor in header.tensors {
            writer.add(tensor.name, type: tensor.type, dimensions: tensor.dimensions, bytes: Array(builder[tensor.offset..<tensor.offset + tensor.byteCount]))
        }
        let file = writer.bytes()
        let found = try GGUFHeader(parsing: file)
        #expect(found.version == 3 && found.alignment == 32)
        #expect(found.metadata == header.metadata)
        #expect(file.prefix(header.dataOffset).elementsEqual(builder.prefix(header.dataOffset)))
        #expect(found.tensors.map(\.name) == header.tensors.map(\.name))
        for (a, b) in zip(found.tensors, header.tensors) {
            #expect((a.type, a.dimensions.count, a.byteCount) == (b.type, b.dimensions.count, b.byteCount))
            #expect(file[a.offset..<a.offset + a.byteCount] == builder[b.offset..<b.offset + b.byteCount])
            #expect(a.offset % 32 == 0)
        }
    }

    @Test func aFileWithoutTensorsEndsAfterItsMetadata() throws {
        var writer = GGUFWriter()
        writer.set("general.name", to: .string("é"))
        #expect(try GGUFHeader(parsing: writer.bytes()).metadata.string("general.name") == "é")
        #expect(try GGUFHeader(parsing: GGUFWriter().bytes()).tensors.isEmpty)
    }

    @Test func tensorsAreAligned() throws {
        var writer = GGUFWriter()
        for count in 1...40 { writer.add("t\(count)", type: .f32, dimensions: [count], bytes: [UInt8](repeating: UInt8(count), count: 4 * count)) }
        let file = writer.bytes()
        let header = try GGUFHeader(parsing: file)
        #expect(header.tensors.count == 40)
        for tensor in header.tensors {
            #expect(tensor.offset % 32 == 0)
            #expect(file[tensor.offset..<tensor.offset + tensor.byteCount].allSatisfy { $0 == UInt8(tensor.dimensions[0]) })
        }
    }
}
