#!/usr/bin/env python3
"""Makes the reference renders that the chat template tests compare with.

Renders with transformers' own `render_jinja_template` (jinja2's immutable sandbox, trim_blocks, lstrip_blocks, loop
controls, generation blocks) and a clock that stands still. Needs transformers, jinja2 and, for `extract`, gguf.

    make_template_golden.py                        # rewrites golden.json and snippets.json in the fixtures folder
    make_template_golden.py extract FILE.gguf NAME # writes Templates/NAME.jinja there, from the file's metadata
"""

import datetime
import json
import sys
from pathlib import Path

import jinja2
import transformers
from transformers.utils import chat_template_utils

FIXTURES = Path(__file__).resolve().parent.parent / "Tests/TokenizationTests/ChatTemplate/Fixtures"


class StandingClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 5, 13, 4, 9)


chat_template_utils.datetime = StandingClock

# --- Conversations with real templates ---------------------------------------------------------------------------

USER = {"role": "user", "content": "What's the weather in Paris? <|im_end|> é😀\n"}
SYSTEM = {"role": "system", "content": "  You are terse.\n"}
ASSISTANT = {"role": "assistant", "content": " It is sunny. "}


def call(arguments, identifier="abcdefghi"):
    return {"id": identifier, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'The "current" weather\nof a city <b>&</b> 天気',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "The city"},
                    "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
                    "days": {"type": ["integer", "null"], "minimum": 0.5},
                },
                "required": ["city"],
            },
        },
    }
]

CONVERSATIONS = {
    "user": [USER],
    "system": [SYSTEM, USER],
    "empty system": [{"role": "system", "content": ""}, USER],
    "turns": [USER, ASSISTANT, USER],
    "system and turns": [SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER],
    "ends with assistant": [USER, ASSISTANT],
    "two users": [USER, USER],
    "tool call": [
        SYSTEM,
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call({"city": "Paris", "n": [1, 2.5, None, True]})]},
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": '{"t": 20}'},
        ASSISTANT,
        USER,
    ],
    "tool calls without content": [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call({"city": "Rome"}), call({"city": "Oslo"}, "abcdefgh2")]},
        {"role": "tool", "tool_call_id": "abcdefghi", "name": "get_weather", "content": "rain"},
        {"role": "tool", "tool_call_id": "abcdefgh2", "name": "get_weather", "content": "snow"},
    ],
    "tool call as text": [
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call('{"city": "Paris"}')]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "sunny"},
    ],
    "reasoning": [
        USER,
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello", "reasoning": "I thought\n"},
        USER,
        {"role": "assistant", "content": "<think>\nhm again\n</think>\n\nHi"},
    ],
    "null content": [{"role": "user", "content": None}],
    "none": [],
}

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
SETTINGS = [
    {"tools": False, "generation_prompt": True, "variables": SPECIAL},
    {"tools": False, "generation_prompt": False, "variables": {}},
    {"tools": True, "generation_prompt": True, "variables": {**SPECIAL, "enable_thinking": False}},
]


def golden():
    cases = []
    for path in sorted((FIXTURES / "Templates").glob("*.jinja")):
        source = path.read_text(encoding="utf-8")
        for name, conversation in CONVERSATIONS.items():
            for setting in SETTINGS:
                case = {"template": path.stem, "conversation": name, **setting}
                try:
                    rendered, _ = chat_template_utils.render_jinja_template(
                        [conversation],
                        tools=TOOLS if setting["tools"] else None,
                        chat_template=source,
                        add_generation_prompt=setting["generation_prompt"],
                        **setting["variables"],
                    )
                    case["text"] = rendered[0]
                except Exception as error:  # noqa: BLE001: any refusal counts
                    case["error"] = str(error) if type(error) is jinja2.TemplateError else ""
                    case["raised"] = type(error) is jinja2.TemplateError
                cases.append(case)
    return {
        "made_with": versions(),
        "clock": [2024, 7, 5, 13, 4, 9],
        "conversations": CONVERSATIONS,
        "tools": TOOLS,
        "cases": cases,
    }


def versions():
    return {"transformers": transformers.__version__, "jinja2": jinja2.__version__, "python": sys.version.split()[0]}


# --- Expressions and statements ----------------------------------------------------------------------------------

CONTEXT = {
    "s": "Hello World",
    "t": "  pad\t\n",
    "e": "",
    "u": "žluťoučký é😀 Straße ΑΣ",
    "n": 7,
    "m": -3,
    "f": 2.5,
    "z": 0,
    "b": True,
    "c": False,
    "none_": None,
    "l": [3, 1, 2],
    "ls": ["b", "A", "c", "a"],
    "ll": [[1, 2], [3, 4]],
    "d": {"b": 1, "a": 2, "C": {"x": [1, {"y": "q"}]}},
    "ld": [{"n": "x", "v": 2, "g": {"h": 1}}, {"n": "Y", "v": 1}, {"n": "z", "v": None}],
    "multi": "line1\nline2\r\n\nline4",
    "html": "<a href='x'>\"&</a>",
    "big": 12345678901,
    "neg": -2.75,
    "lf": [1.5, 0.25],
    "mixed": [1, "1", 1.0, True, None],
    "pairs": [["a", 1], ["b", 2]],
}

# One expression a line.
EXPRESSIONS = r"""
n+1
n/2
n//2
-n//2
n%3
-n%3
n%-3
n**2
n**-1
2**0.5
f%1
-f//1
f//0.5
n*f
s*2
2*s
l*2
l+l
s+t
n+s
s+n
n/0
n//0
n%0
-n
+n
-s
not s
not e
b+1
b*b
l-l
n~s
none_~b
l~d
f~1
1e100~1e16~1e15~123456789.123~1e-5~0.0001~1e22
0.1+0.2
1/3
5e-324
1.0
100.0
-0.0
1e5
1_000
0x1F
0b101
0o17
1.5e3
.5
n==7
n==7.0
b==1
s=="Hello World"
none_==none
l==[3,1,2]
l==(3,1,2)
d=={"a":2,"b":1,"C":{"x":[1,{"y":"q"}]}}
n!=7
n<8
1<n<8
1<n<5
n>8
s<"Z"
l<[4]
[1,2]<[1,2,3]
n<s
n>=7
n<=6
1 in l
9 in l
"ell" in s
"x" not in s
"a" in d
1 in d
n in s
none_ in l
1 in none_
x in s
x in l
"a" in x
(1,2) in [(1,2)]
l in ll
1 == 1 == 1
3 > 2 >= 2
'b' < 'a' or 'c'
x
x.y
x is defined
x is undefined
x==y
x|default("D")
x|d
e|default("D")
e|default("D",true)
e|default("D",boolean=true)
none_|default("D")
x~"a"
x+"a"
x|length
x|list
x|upper
x or "o"
x and "o"
not x
x[0]
x()
s.nope
s.nope is defined
d.nope
d.nope.more
d["nope"]
d.C.x[1].y
d["C"]["x"][0]
l[0]
l[-1]
l[9]
l["a"]
l[b]
s[0]
s[-1]
s[99]
u[9]
u[-1]
l.0
ll.1.0
none_.x
none_["x"]
n.x
x is none
none_ is none
s[1:3]
s[:3]
s[3:]
s[-3:]
s[:-3]
s[::2]
s[::-1]
s[8:2:-2]
s[-100:100]
u[3:12]
u[::-1]
l[1:]
l[::-1]
l[:-1]
l[5:]
(1,2,3)[1:]
s[none:3]
s[::0]
s["a":]
x[1:]
none_[1:]
l[1:2]
range(10)[2:5]|list
range(10)[::-3]|list
l[:1]+l[2:]
s.upper()
s.lower()
s.title()
s.capitalize()
s.swapcase()
u.upper()
u.lower()
u.title()
u.capitalize()
t.strip()
t.lstrip()
t.rstrip()
s.strip("Hd")
s.lstrip("Heo")
s.rstrip("dl")
s.strip("")
"ééaéé".strip("é")
s.split()
s.split("o")
s.split("o",1)
s.split("l",maxsplit=1)
s.rsplit("o",1)
s.rsplit("l")
t.split()
"a  b c ".split(None,1)
"a  b c ".rsplit(None,1)
" a b ".split(" ")
"".split()
"".split(",")
s.split("")
multi.splitlines()
multi.splitlines(true)
"a\x0bb\x0cc\x1cd\x85e\u2028f".splitlines()
s.startswith("He")
s.startswith(("x","He"))
s.endswith("ld")
s.startswith("World",6)
s.endswith("Hello",0,5)
s.startswith("")
s.startswith(1)
s.replace("l","L")
s.replace("l","L",1)
s.replace("","-")
e.replace("","-")
s.replace("lo","")
s.find("o")
s.find("o",5)
s.find("q")
s.rfind("o")
s.index("W")
s.index("q")
s.rindex("l")
u.find("😀")
u.find("S")
s.count("l")
s.count("")
s.count("o",5)
s.join(ls)
",".join(l)
",".join(d)
",".join("abc")
s.center(20)
s.center(21,"*")
s.ljust(15,".")~"|"
s.rjust(15)~"|"
"42".zfill(5)
"-42".zfill(5)
"+4".zfill(4)
s.zfill(2)
s.partition(" ")
s.rpartition("o")
s.partition("q")
s.rpartition("q")
s.removeprefix("He")
s.removesuffix("ld")
s.removeprefix("x")
"abc".isalpha()
"ab1".isalnum()
"12".isdigit()
"²".isdigit()
"½".isnumeric()
"12".isdecimal()
"".isdigit()
" \t".isspace()
s.islower()
"ABC".isupper()
"A1".isupper()
"é".isascii()
"a\n".isprintable()
"a\tb".expandtabs()
"a\tbc\td".expandtabs(4)
s.nothing()
"{} {}".format(1,"a")
"{0} {1} {0}".format("x",2)
"{a}-{b}".format(a=1,b=l)
"{:>8}|{:<8}|{:^8}|".format("a","b","c")
"{:05d}".format(42)
"{:+d}".format(5)
"{:.2f}".format(3.14159)
"{:10.3f}|".format(2.5)
"{:,}".format(1234567)
"{:x} {:X} {:o} {:b} {:#x}".format(255,255,8,5,255)
"{:e}".format(12345.678)
"{:g}".format(0.0001)
"{:%}".format(0.25)
"{!r}".format("a'b")
"{{}}".format()
"{".format()
"{}".format()
"{0[a]} {0[C][x]}".format(d)
"{:*^20}".format("mid")
"{:.3}".format("abcdef")
"{}".format(none_)
"{:d}".format("x")
"{:>{w}}".format("a",w=5)
"{}".format(true)
"{:s}".format("q")
"{:.1f}%".format(99.95)
"{:.0f}".format(0.5)
"{:.0f}".format(1.5)
"{:<5}|".format(3)
"{:5}|".format("a")
"{:5}|".format(1.5)
"{:.3}".format(3.14159)
"{:c}".format(65)
"{:n}".format(5)
"%s %s" % (1,"a")
"%s" % "x"
"%d" % 3.7
"%05d|%-5d|%+d" % (42,42,42)
"%.2f" % 2.675
"%5.1f|" % 3.14159
"%x %X %o" % (255,255,8)
"%r" % "a"
"%%" % ()
"%s" % l
"%s" % (l,)
"%(a)s" % d
"%(zz)s" % d
"%s %s" % (1,)
"%s" % (1,2)
"%d" % "x"
"%e" % 12345.678
"%g" % 0.00001
"%c" % 65
"%c" % "x"
"%10s|%-10s|" % ("a","b")
"%.3s" % "abcdef"
"abc" % l
"abc" % 1
"%*d" % (5,42)
"%i" % 3
"%#x" % 255
"% d" % 3
"%s" % none_
"%s" % x
"%s-%s"|format(1,2)
"%(a)s"|format(a=3)
s|upper
s|lower
s|title
"hello-world (foo) bar's"|title
s|capitalize
t|trim
s|trim("Hd")
n|upper
none_|upper
s|replace("l","L")
s|replace("l","L",1)
n|replace("7","8")
s|length
l|length
d|length
n|length
none_|length
u|length
l|count
s|first
l|first
[]|first
d|first
l|last
s|last
[]|last
d|last
x|first
s|list
d|list
l|list
n|list
s|reverse
l|reverse|list
d|reverse|list
l|join(",")
ls|join
ld|join(",",attribute="n")
"abc"|join("-")
d|join(",")
mixed|join("|")
none_|join
x|join
l|sort
ls|sort
ls|sort(case_sensitive=true)
l|sort(reverse=true)
ld|sort(attribute="n")|map(attribute="n")|list
ld|sort(attribute="g.h")
mixed|sort
d|sort
d|dictsort
d|dictsort(true)
{"x":2,"y":1}|dictsort(by="value")
{"x":2,"y":1}|dictsort(false,"value",true)
d|dictsort(by="z")
ls|unique|list
["a","A","b"]|unique|list
["a","A"]|unique(true)|list
l|min
l|max
ls|min
[]|min
l|sum
ld|sum(attribute="v")
ld[:2]|sum(attribute="v")
ld[:2]|sum("v",10)
lf|sum
l|sum(start=10)
l|batch(2)|list
l|batch(2,"x")|list
l|slice(2)|list
l|slice(2,"x")|list
range(7)|batch(3)|list
range(7)|slice(3)|list
l|map("string")|list
l|map("abs")|join
ls|map("upper")|list
ld|map(attribute="n")|list
ld|map(attribute="g.h",default="D")|list
ld|map(attribute="zz",default="D")|list
ld|map(attribute="zz")|list
ls|map("replace","a","Q")|list
l|select("odd")|list
l|reject("odd")|list
mixed|select|list
l|select(">",1)|list
l|select("gt",1)|list
l|select("in",[1,2])|list
ld|selectattr("v")|list|length
ld|selectattr("v","equalto",1)|list
ld|selectattr("v","none")|list
ld|rejectattr("v","none")|map(attribute="n")|list
ld|selectattr("g","defined")|list|length
ld|selectattr("g.h","==",1)|list
l|map("nope")|list
l|select("nope")|list
none_|map("upper")|list
x|map("upper")|list
ld|map|list
l|map(attribute=0)|list
ll|map(attribute=0)|list
ll|map("first")|list
ll|map("join","-")|list
l|selectattr|list
(l|map("string"))|length
(l|map("string"))[0]
l|map("string") is iterable
l|map("string") is sequence
(l|map("string")) and "yes"
(l|select("none")) and "yes"
l|map("string")|first
l|reverse|first
(l|items)|list
d|items|list
d|items|length
x|items|list
d.items()|list
d.items()
d.keys()
d.values()
d.keys()|list
d.values()|first
d.items()|length
d.items()[0]
"a" in d.keys()
1 in d.values()
d.get("a")
d.get("q")
d.get("q",5)
d.get()
d.copy()
d.pop("a")
d.update({})
l.append(1)
l.index(1)
l.index(9)
l.count(1)
(1,1).count(1)
l.copy()
d|string
{"items":1}["items"]
{"get":1}.get("get")
d["keys"]()|list
d|tojson
l|tojson
s|tojson
u|tojson
u|tojson(ensure_ascii=true)
html|tojson
none_|tojson
f|tojson
1.0|tojson
1e100|tojson
big|tojson
true|tojson
x|tojson
d|tojson(indent=2)
d|tojson(indent=0)
ll|tojson(indent=4)
d|tojson(sort_keys=true)
d|tojson(separators=(",",":"))
d|tojson(separators=[",",": "],indent=1)
[]|tojson(indent=2)
{}|tojson(indent=2)
{1:2,none:3,true:4,1.5:5}|tojson
{(1,2):3}|tojson
(1,2)|tojson
d.items()|tojson
l|map("string")|tojson
"\x00\x1f\x7f\u2028\"\\/\b\f\n\r\t"|tojson
d|tojson(indent="\t")
range(3)|tojson
d|tojson(true)
d|tojson(false,2)
{"b":1,"a":{"d":1,"c":2}}|tojson(sort_keys=true)
{"a":1,1:2}|tojson(sort_keys=true)
(l|tojson)|length
[undefined_x]|tojson
{"a":[],"b":{}}|tojson(indent=2)
"42"|int
"42.9"|int
"x"|int
"x"|int(5)
"0x1F"|int(base=16)
"ff"|int(0,16)
" 12 "|int
"1_000"|int
none_|int
none_|int(7)
3.99|int
-3.99|int
true|int
l|int
"1e3"|int
"4.5"|float
"x"|float
"x"|float(1.5)
none_|float
" 1e3 "|float
"inf"|float
"nan"|float
"-.5"|float
"5."|float
"1_0.5"|float
n|float
"0x10"|float
""|int
"-"|int
"+5"|int
"- 5"|int
"12"|int(base=8)
"09"|int
"0b11"|int(0,2)
"0b11"|int(0,0)
x|int
f|string
n|string
2.567|round
2.567|round(2)
2.5|round
3.5|round
-2.5|round
2.567|round(1,"floor")
2.501|round(1,"ceil")
42|round
45|round(-1)
1234.5|round(-2)
2.675|round(2)
2.5|round(method="ceil")
"x"|round
-5|abs
m|abs
neg|abs
s|abs
0.5|round
1.5|round|int
multi|indent
multi|indent(2)
multi|indent(2,true)
multi|indent(2,true,true)
multi|indent(width="> ")
multi|indent(first=true)
e|indent(2)
e|indent(2,true)
"a\n"|indent
n|indent
"a\n\n"|indent(2,blank=true)
html|e
html|escape
html|forceescape
html|safe
n|e
s|truncate(5)
s|truncate(8)
"foo bar baz qux"|truncate(9)
"foo bar baz qux"|truncate(9,true)
"foo bar baz qux"|truncate(11)
"foo bar baz qux"|truncate(11,false,"...",0)
"foo bar baz qux"|truncate(2)
s|center(20)~"|"
s|wordcount
"a_b c-d é"|wordcount
s|nope
d|attr("a")
d|attr("get") is callable
s|attr("upper") is defined
s|string|length
l|string
s|d(1)|e
s is string
n is string
n is number
f is number
b is number
n is integer
b is integer
f is float
b is boolean
n is boolean
d is mapping
l is mapping
l is iterable
s is iterable
n is iterable
d is iterable
x is iterable
l is sequence
d is sequence
s is sequence
n is sequence
x is sequence
range(3) is sequence
n is odd
n is even
n is divisibleby(7)
n is divisibleby 7
n is divisibleby(3)
b is true
n is true
c is false
z is false
s is upper
s is lower
"abc" is lower
"ABC" is upper
n is eq 7
n is eq(7)
n is equalto 7
n is ne 7
n is lt 8
n is le 7
n is gt 3
n is ge 8
n is lessthan 8
n is greaterthan 8
1 is in l
1 is in [1]
"a" is in "abc"
n is not none
s is not string
range is callable
s is callable
x is callable
s.upper is callable
n is sameas 7
b is sameas true
n is sameas true
none is sameas none
s is escaped
"upper" is filter
"nope" is filter
"odd" is test
"nope" is test
s is nope
s is odd
x is odd
none is none
n is defined and s is defined
not n is defined
n is number is number
s is string == true
(1 if n is odd else 2)
n is odd(1)
f is divisibleby 0.5
f is odd
3.0 is odd
"yes" if n else "no"
"yes" if z
("yes" if z) is defined
1 if z else 2 if e else 3
(1 if b else 2)+1
n if n>5 and s or e else 0
s and n
e or n
e and n
n or x.y
not not n
not n == 7
not(n)
(n)
(n,)
()
(1,2)
[]
{}
[1,[2,{"a":(1,)}]]
{"a":1,"b":[1.5,none,true,"x'y"]}
["a\"b","c'd","e'f\"g","\n\t\\","é","\x01\u200b"]
[none,true,1.0,1e20]
{1:"a",(1,2):"b",none:1}
{[1]:2}
"a" "b"
'a' 'b'~"c"
"\x41\u00e9\U0001F600\101\q"
[1,2,]
{"a":1,}
(1,2,)
[1][0]
{"a":1}.a
"abc"[1]
"abc".upper()
("a"~"b").upper()
-1|abs
-n|abs
(-n)|abs
2**3**2
-2**2
2*3+4
2+3*4
2+3~4
"a"~1+2
10-2-3
100/10/2
7//2*2
n|string+s
s|length>5
s|length + 1
l|length is odd
d.a + d.b
s|upper|lower|title
s.split(" ")[0].upper()[1:]
s.split(" ")|map("length")|list
[l,ls]|map("length")|sum
loop
loop.index
caller
varargs
range(3)|list
range(1,4)|list
range(5,0,-2)|list
range(0)|list
range(3)
range(1,9,2)
range(3)|length
range(3)[1]
range(3)[-1]
range(3)[5]
range(100001)
range(1,2,0)
range("a")
range()
2 in range(3)
range(3)|sum
range(3)==range(0,3)
range(5)|last
dict(a=1,b=2)
dict({"a":1},b=2)
dict([("a",1)])
dict(d,a=9).a
dict.fromkeys(["a","b"],0)
dict([1])
namespace(a=1).a
namespace(a=1)["a"]
namespace(a=1).b
namespace(_a=1)
namespace(d).a
namespace(a=1)
cycler(1,2).next()
cycler()
joiner()()~"x"
raise_exception("boom " ~ n)
raise_exception()
strftime_now("%Y-%m-%d %H:%M:%S %B %b %A %a %j %p %I %y %-d %-m %e %U %W %V %G %u %w %D %F %T %R %C %h %% %n %t %k %l %c %x %X %r %f %Z")
strftime_now("%d %b %Y")
[1,2]|sum(start="a")
"a" * 3
"a" * -1
[0]*3
"ab"|list|join("-")
u|upper
u|lower
u|title
u|capitalize
"ǆ".title()
"ß".upper()
"ŉ".title()
"ΑΣ ΣΑΣ".lower()
"İ".lower()
"ﬁ".capitalize()
"they're bill's".title()
l|tojson|safe
s|list|tojson
l.__class__
s.__len__()
d.__class__
d["__class__"]
().__class__
"".__class__.__mro__
f.is_integer()
2.0.is_integer()
""".strip().split("\n")

STATEMENTS = [
    # Whitespace control.
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}  \n  b\n  {% endif %}\nc",
    "a\n  {%- if true -%}  \n  b\n  {%- endif -%}\nc",
    "a\n  {%+ if true +%}\n  b\n  {%+ endif +%}\nc",
    "a  {% if true %}b{% endif %}  c",
    "\n\n  {% set x = 1 %}\n\n{{ x }}\n\n",
    "  {{ n }}  \n{{- n -}}\n  x",
    "{{- n }}\n\n",
    "x\n  {# comment #}\n  y {#- c -#}  z\n{#+ c +#}\nw",
    "{# a {{ b }} {% c %} #}d",
    "{% raw %}{{ x }}{% if %}{% endraw %}|",
    "a\n  {% raw %}\n  b\n  {% endraw %}\n c",
    "a {%- raw -%}  b  {%- endraw -%} c",
    "{%raw%}x{%endraw%}",
    "\t{% if true %}\tx\t{% endif %}\t",
    "a\r\nb\r{% if true %}\r\nc{% endif %}\r\n",
    "é \u00a0{%- if true %}x{% endif %}",
    "}} %} #} {",
    "{{ '}}' }}{{ '%}' }}{% if '%}' %}y{% endif %}",
    "{{ {'a': {'b': 1}}}}",
    "{%if n==7%}x{%elif n%}y{%else%}z{%endif%}",
    "{{-1}}|{{ -1 }}|{{+1}}",
    # Loops.
    "{% for x in l %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.first }}/{{ loop.last }}/{{ loop.length }}:{{ x }} {% endfor %}",
    "{% for x in l %}[{{ loop.previtem }}<{{ x }}<{{ loop.nextitem }}]{% endfor %}",
    "{% for x in l %}{{ loop.previtem is defined }}{{ loop.nextitem is defined }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle('odd', 'even') }}{{ loop.changed(x > 1) }}{{ loop.depth }}{{ loop.depth0 }}{% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{% if loop.changed(x) %}{{ x }}{% endif %}{% endfor %}",
    "{% for x in [] %}{{ x }}{% else %}empty{% endfor %}",
    "{% for x in l %}{{ x }}{% else %}empty{% endfor %}",
    "{% for x in nothing %}{{ x }}{% else %}empty{% endfor %}",
    "{% for x in l if x > 5 %}{{ x }}{% else %}none{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{{ loop.nextitem }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ loop.length }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
    "{% for k in d %}{{ k }}{% endfor %}",
    "{% for k, v in d|dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{% for (a, b), c in [((1, 2), 3)] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, b in pairs %}{{ a }}{{ b }}{% endfor %}",
    "{% for a, b in l %}{{ a }}{% endfor %}",
    "{% for c in u %}{{ c }}.{% endfor %}",
    "{% for x in range(5) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
    "{% for x in l %}{% break %}{% else %}else{% endfor %}",
    "{% for x in l %}{% continue %}{% else %}else{% endfor %}",
    "{% for x in l %}{% for y in l %}{% if y == 1 %}{% break %}{% endif %}{{ x }}{{ y }} {% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in l %}{% set outer = loop %}{% for y in 'ab' %}{{ outer.index }}{{ loop.index }} {% endfor %}{% endfor %}",
    "{% for x in l recursive %}{{ x }}{% endfor %}",
    "{% for x in [[1, [2, [3]]], [4]] recursive %}({{ loop.depth }}{% if x is iterable %}{{ loop(x) }}{% else %}{{ x }}{% endif %}){% endfor %}",
    "{% for x in l %}{{ loop(l) }}{% endfor %}",
    "{% set g = l|map('string') %}{% for x in g %}{{ x }}{% endfor %}|{% for x in g %}{{ x }}{% endfor %}",
    "{% set ns = namespace(stop=false) %}{% for x in l if not ns.stop %}{{ x }}{% set ns.stop = true %}{% endfor %}",
    "{% for x in l %}{{ loop }}{% endfor %}",
    "{{ loop }}{{ loop is defined }}{% for x in [1] %}{{ loop is defined }}{% endfor %}",
    "{% for loop_item in l %}{{ loop_item }}{% endfor %}{{ loop_item }}",
    "{% for x in 5 %}{% endfor %}",
    "{% for x in none_ %}{% endfor %}",
    # Scopes and assignments.
    "{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% for i in l %}{{ x }}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% for i in l %}{% if i == 1 %}{% set n = 'set' %}{% endif %}{{ n }}{% endfor %}{{ n }}",
    "{% set ns = namespace(x=1, y=[]) %}{% for i in l %}{% set ns.x = ns.x + i %}{% set ns.y = ns.y + [i] %}{% endfor %}{{ ns.x }}{{ ns.y }}",
    "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }}",
    "{% set d.a = 1 %}",
    "{% set q.a = 1 %}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% set a, b = [1, 2] %}{{ a }}{{ b }}",
    "{% set a, b = [1] %}",
    "{% set a = 1, 2 %}{{ a }}",
    "{% set ns = namespace() %}{% set ns.a, b = 1, 2 %}{{ ns.a }}{{ b }}",
    "{% set x %}  text {{ n }}\n{% endset %}[{{ x }}]",
    "{% set x | trim | upper %}  text {{ n }} {% endset %}[{{ x }}]",
    "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}",
    "{% for i in l %}{% set x %}{{ i }}{% if i == 1 %}{% break %}{% endif %}{% endset %}{{ x }}{% endfor %}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a is defined }}",
    "{% with n = 1 %}{% with a = n %}{{ a }}{{ n }}{% endwith %}{% endwith %}{{ n }}",
    "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}",
    "{% set n = n + 1 %}{{ n }}",
    "{% set true = 1 %}",
    "{% set range = 5 %}{{ range }}",
    # Macros and calls.
    "{% macro m(a, b=2, c=a) %}{{ a }},{{ b }},{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(b=1, a=2) }}{{ m(1, c=5) }}{{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=2) }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, k=4) }}",
    "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}inner {{ n }}{% endcall %}",
    "{% macro m(l) %}{% for x in l %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(x, i) m(l) %}{{ x }}@{{ i }} {% endcall %}",
    "{% macro m() %}{{ caller is defined }}{{ caller }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{{ m() }}",
    "{% macro f(n) %}{{ n }}{% if n > 1 %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}",
    "{% macro m() %}{{ x }}{% endmacro %}{% set x = 1 %}{{ m() }}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{% set y = 1 %}{{ y }}{% endmacro %}{{ m() }}{{ y is defined }}",
    "{% for x in l %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}{{ m is defined }}",
    "{% macro m(x) %}  {{ x }}\n{% endmacro %}[{{ m(1)|trim }}]{{ m(2) ~ 'x' }}{{ m.name }}{{ m.arguments }}",
    "{% macro m(a, a2=[]) -%} {{ a }} {%- endmacro %}{{ [1, 2]|map('string')|join }}{{ m('q')|upper }}",
    "{{ m() }}{% macro m() %}late{% endmacro %}",
    "{% macro m(a=1, b) %}{% endmacro %}",
    "{% call m() %}{% endcall %}",
    "{% call n %}{% endcall %}",
    "{% filter upper %}a{{ s }}{% filter replace('A', 'b') %}aA{% endfilter %}{% endfilter %}",
    "{% filter trim|upper|replace('X', '-') %}  x y  {% endfilter %}",
    "{% generation %}\na {{ n }}\n{% endgeneration %}\nb",
    "{% generation %}{% set g = 1 %}{% endgeneration %}{{ g is defined }}",
    "{% print n, s %}",
    # Objects.
    "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.current }}",
    "{% set j = joiner('; ') %}{% for x in l %}{{ j() }}{{ x }}{% endfor %}",
    "{% set j = joiner() %}{{ j() }}a{{ j() }}b",
    "{{ dict(d, z=1)|tojson }}{{ dict(**d)|tojson }}",
    "{{ '%s-%s'|format(*[1, 2]) }}{{ range(*[1, 4])|list }}",
    "{{ n(1) }}",
    "{{ s() }}",
    "{{ range(2)() }}",
    # Typical idioms of chat templates.
    "{% if ld[0]['n'] == 'x' %}{% set first = ld[0] %}{% set ld = ld[1:] %}{% endif %}{{ first.n }}{{ ld|length }}",
    "{%- for m in ld %}\n    {%- if (m['n'] == 'x') != (loop.index0 % 2 == 0) %}\n        {{- raise_exception('order ' + m.n) }}\n    {%- endif %}\n{%- endfor %}ok",
    "{% set ns = namespace(last=-1) %}{% for m in ld[::-1] %}{% set index = (ld|length - 1) - loop.index0 %}{% if m.v is not none and ns.last < 0 %}{% set ns.last = index %}{% endif %}{% endfor %}{{ ns.last }}",
    "{{ '<think>a</think>\\nb'.split('</think>')[-1].lstrip('\\n') }}{{ '<think>a</think>b'.split('</think>')[0].rstrip('\\n').split('<think>')[-1] }}",
    "{{ 'a' if s is string else 'b' if s is mapping else 'c' }}",
    "{{ (d.x or d.y or 'z')|upper }}{{ d.get('x', 'w') }}{{ d['C'].x | tojson(indent=2) }}",
    "{% if x is defined and x %}1{% elif ld and ld[0].g.h == 1 %}2{% endif %}",
    "{{ ld | selectattr('v', 'defined') | rejectattr('v', 'none') | map(attribute='n') | join(' and ') }}",
    "{{ strftime_now('%d %b %Y') if strftime_now is defined else 'no' }}",
    # Syntax errors.
    "{% if %}{% endif %}",
    "{% if n %}",
    "{% endif %}",
    "{% for x in l %}{% endif %}",
    "{% nope %}",
    "{{ }}",
    "{{ n",
    "{{ n }",
    "{{ (n }}",
    "{{ n) }}",
    "{{ 'a }}",
    "{{ n ! }}",
    "{# open",
    "{% raw %}x",
    "{{ a b }}",
    "{{ l[1 }}",
    "{{ {1, 2} }}",
    "{{ f(a=1, 2) }}",
    "{{ n is }}",
    "{{ n | }}",
    "{{ n. }}",
    "{% for in l %}{% endfor %}",
    "{% for x l %}{% endfor %}",
    "{% set = 1 %}",
    "{% set x %}",
    "{% break %}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% extends 'x' %}",
    "{% do l %}",
    "{{ 08 }}",
]


def snippets():
    results = []
    for source in [f"{{{{ {expression} }}}}" for expression in EXPRESSIONS] + STATEMENTS:
        result = {"source": source}
        try:
            result["text"] = chat_template_utils._compile_jinja_template(source).render(**CONTEXT)
        except Exception as error:  # noqa: BLE001: any refusal counts
            result["error"] = str(error) if type(error) is jinja2.TemplateError else ""
        results.append(result)
    return {"made_with": versions(), "clock": [2024, 7, 5, 13, 4, 9], "context": CONTEXT, "snippets": results}


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, indent=0, separators=(",", ":"))
    (FIXTURES / name).write_text(text + "\n", encoding="utf-8")


def extract(path, name):
    import gguf

    source = gguf.GGUFReader(path).fields["tokenizer.chat_template"].contents()
    (FIXTURES / "Templates" / f"{name}.jinja").write_text(source, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "extract":
        extract(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 1:
        write("golden.json", golden())
        write("snippets.json", snippets())
    else:
        sys.exit(__doc__)
