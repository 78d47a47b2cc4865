/// What a key press means to a line editor.
package enum Key: Equatable, Sendable {
    /// One or more printable characters, or a tab.
    case text(String)
    /// A paste that the terminal marked as one: line ends are `\n`, other control characters are gone.
    case paste(String)
    case enter
    /// Enter with Alt or Shift: a line break within the text.
    case lineBreak
    case backspace, delete
    case left, right, up, down
    case wordLeft, wordRight
    case home, end
    case deleteWordLeft, deleteWordRight
    /// Ctrl and a letter, in lower case.
    case control(Character)
    /// Escape alone, or a key that means nothing here.
    case other
}
