"""Families of answers that real solutions give: equal pairs, and unequal ones that are near each other."""

EQUAL = {
    "units": [
        (r"5\,\text{cm}", "5"), (r"8\sqrt{3}\text{ cm}^{2}", r"8\sqrt{3}"), (r"8\sqrt{3} cm", r"8\sqrt3"), (r"4\pi \text{ square units}", r"4\pi"),
        (r"5\frac{\text{m}}{\text{s}}", "5"), ("2 s", "2"), ("5km", "5 km"), (r"10^{\text{th}}", "10"), ("3rd", r"3\text{rd}"),
        (r"3\text{ feet }2\text{ inches}", "3 feet 2 inches"),
    ],
    "percent": [
        (r"20\%", "20"), ("20%", "0.2"), (r"33\frac13\%", r"\frac{100}{3}\%"), (r"33\frac13\%", r"\frac13"), ("50", "50 percent"),
        ("0.5", "50 percent"), (r"12\frac12\%", "0.125"), ("2/4", "1/2"),
    ],
    "words": [
        (r"\text{no solution}", "No solution"), (r"\textbf{(B)}", "B"), (r"\text{A, D, G}", "G,A,D"),
        ("Alice, Bob, and Carol", r"\text{Carol, Bob and Alice}"), ("July 4", r"\text{July 4}"),
    ],
    "tuples and intervals": [
        (r"\left(1,\frac12\right)", "(1, 0.5)"), (r"(-\infty, 2) \cup (3,\infty)", r"(3, \infty)\cup(-\infty,2)"), (r"x \in [0,1)", "[0, 1)"),
        ("0 < x < 1", "(0,1)"), (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", "(1,2)"), ("(1,2),(3,4)", "(3,4), (1,2)"),
        (r"\begin{bmatrix}1&x\\3&4\end{bmatrix}", r"\begin{pmatrix}1 & x \\ 3 & 4.0\end{pmatrix}"),
    ],
    "lists and sets": [
        ("1, 2 and 3", r"3, 2, \text{ and } 1"), (r"\{1, 1, 2\}", "2, 1"), (r"\pm\sqrt2", r"\sqrt2, -\sqrt2"),
        (r"3 \pm \sqrt{2}", r"3-\sqrt2, 3+\sqrt2"), (r"x = \pm 2", r"x = -2 \text{ or } x = 2"), (r"\varnothing", r"\emptyset"),
        ("x = 3, -2", "-2, 3"), (r"45^\circ \text{ or } 135^\circ", "135, 45"), (r"20\%, 20", "20, 0.2"),
    ],
    "systems": [
        ("x=1, y=2", "y = 2, x = 1"), ("x=1, y=2", "(1, 2)"), ("p=5,q=2;p=7,q=2", r"p = 7, q = 2 \quad \text{and} \quad p=5, q=2"),
        (r"\begin{cases} a+b=1 \\ a-b=\sqrt3 \end{cases}", r"\begin{cases} a-b=\sqrt3 \\ b+a=1 \end{cases}"), ("x=1,y=2", "y=2,x=1"),
        ("(1,2)", "y=2, x=1"), ("x=1 or x=2", "1,2"), ("x=1 or x=2", "x=2 or x=1"),
    ],
    "fractions": [
        (r"\frac12", "0.5"), (r"\frac1{2}", r"\frac{1}2"), (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt2}"), (r"\frac123", r"\frac{3}{2}"),
        (r"1\frac12", r"\frac32"), ("1 1/2", "1.5"), (r"-1\frac12", "-1.5"), (r"\tfrac{137}{111}", r"\frac{411}{333}"),
    ],
    "decimals": [
        ("1,000,000", "1000000"), ("1{,}000", r"1\,000"), (r"0.\overline{3}", r"\frac13"), (r"0.1\overline{6}", "1/6"),
        (r"0.\overline{12}", r"\frac{4}{33}"), (r"1.2 \times 10^{-3}", "0.0012"), ("1.2e5", "120,000"), (r"5 \cdot 10^3", "5000"),
        (r"10.5\pi", r"\frac{21}{2}\pi"), ("0.5x", r"\frac{x}{2}"),
    ],
    "degrees and currencies": [
        (r"30^{\circ}", "30°"), (r"\cos 30^\circ", r"\frac{\sqrt3}{2}"), (r"\$1,234.50", "1234.5"), (r"-\$5", "-5"), ("€5", "5 dollars"),
    ],
    "times": [
        (r"8\!:\!34 \text{ p.m.}", "8:34 PM"), ("11:30", "11:30 a.m."), ("12 pm", "12:00 p.m."),
    ],
    "expressions": [
        (r"\sqrt{3+2\sqrt2} - \sqrt2", "1"), ("x^{3/2}", r"\sqrt{x^3}"), (r"\sqrt{x^2}", "|x|"), (r"e^{i\pi}", "-1"), ("i", r"\sqrt{-1}"),
        ("2pi/3", r"\frac{2\pi}{3}"), ("x**2", "x^2"), ("sqrt(2)", r"\sqrt2"), ("**5**", "5"), ("2x+3y=6", "4x+6y=12"), ("3<x", "x > 3"),
        (r"\sqrt{x-5}", "(x-5)^{1/2}"), (r"\sqrt{4x-20}", r"2\sqrt{x-5}"),
    ],
    "tuples and sets": [
        ("2, 3", r"\{3,2\}"), ("2, 3", "(2,3)"), ("{2,3}", "2,3"),
    ],
    "equations and values": [
        ("5", "x=5"), ("5", "5=x"), ("x=5", "2x=10"), ("5", "f(x)=5"), ("5", "a_1=5"), ("5", r"\theta = 5"), ("5", r"\angle ABC = 5"),
        ("5", "5 = 2+3"),
    ],
    "letters and words": [
        ("ab", "ba"), ("xy", "yx"), ("ab+1", "ba+1"), ("2ab", "2ba"), ("mn", "nm"),
    ],
    "words after numbers": [
        ("60", "5 dozen"), ("0.5", "5 tenths"), ("5", "5 mod 7"), ("5", "5 percent"), ("5", "5 dollars"), ("5", "5 per hour"),
        ("5", "5 miles per hour"), ("5", "5 blue marbles"), ("120", "5!"), ("25", "5 squared"),
    ],
    "dates and codes": [
        ("31", "0x1F"), ("2023-05-01", "2023-05-01"),
    ],
    "Unicode": [
        ("x^2", "x²"), ("10^{-4}", "10⁻⁴"), (r"\frac34", "¾"), ("2.5", "2½"), (r"\sqrt3", "√3"), ("3/7", "3⁄7"), ("12", "１２"), ("(1,2)", "（1，2）"),
        ("3,5", "3、5"), ("42", "42元"), ("3,5", "3或5"), ("42", "答案是42"), ("42", "答案：42"), ("42", "42。"), (r"2\sqrt{3}", "2√3"), (r"\sqrt{12}", "√12"),
        (r"\frac{\sqrt3}{2}", "√3/2"), ("x^{10}", "x¹⁰"), ("a_1", "a₁"), (r"\pi", "π"), (r"2\pi", "2π"), (r"\frac{\pi}{2}", "π/2"),
        (r"x\le 3", "x≤3"), (r"x \ne 2", "x≠2"), (r"(-\infty,2)", "(−∞,2)"), (r"\pm 2", "±2"), (r"(-\infty,1)\cup(2,\infty)", "(−∞, 1) ∪ (2, ∞)"),
        (r"30^\circ", "30°"), ("0.5", "½"), ("-0.5", "−½"), ("3.5", "3 ½"), ("x^{-1}", "x⁻¹"), ("x^{2n}", "x²ⁿ"), (r"\sqrt[3]{2}", "∛2"),
        ("-5", "－5"), ("50%", "５０％"), ("3:4", "3：4"), (r"\alpha", "α"),
    ],
    "scientific notation": [
        ("3.2e-5", "3.2 × 10^-5"), ("3.2e-5", "3.2 x 10^{-5}"), ("3.2e-5", "3.2x10^-5"), ("300000", "3×10⁵"), ("300000", "3 * 10^5"),
        ("6.02e23", r"6.02 \times 10^{23}"),
    ],
    "fractions and roots": [
        (r"\frac37", r"\nicefrac{3}{7}"), (r"\frac37", r"\sfrac37"), (r"\sqrt[3]{7}", r"\sqrt[3]7"),
    ],
    "functions": [
        ("f(x)=2x+1", "y=2x+1"), ("f(x)=2x+1", "2x+1"), ("f(t)=2t+1", "f(x)=2x+1"), ("y=2x+1", "2x+1"),
    ],
    "conditions": [
        ("2x+1", r"2x+1 \text{ for all real x}"), ("2x+1", "2x+1, where n ≥ 1"), ("n^2", r"n^2 \text{ for } n \ge 1"), ("n^2", r"n^2, n \ge 1"),
        ("n^2", "n^2 for all positive integers n"), (r"k\pi", r"k\pi, k \in \mathbb{Z}"), ("2n+1", "2n+1 (where n is an integer)"),
    ],
    "multiple choice": [
        ("E", "(E) 42"), ("E", r"\textbf{(E)}"), ("E", "Option E"), ("42", "(E) 42"), ("B", "B) 12"), ("C", r"\text{C}"), ("(C)", "C"),
        ("C", "Choice C"), ("C", "answer: C"), ("A", "A. 5"), ("D", "The answer is D"),
    ],
    "intervals in other spellings": [
        ("(2,5)", "]2,5["), ("[2,5)", "[2,5["), ("(-3,3)", "|x|<3"), ("[-3,3]", r"|x| \leq 3"),
        (r"(-\infty,-1)\cup(2,\infty)", r"x<-1 \text{ or } x>2"), ("(2,5)", r"\{x \mid 2<x<5\}"), ("(2,5)", r"\{x : 2<x<5\}"),
        ("(2,5)", r"\{x \in \mathbb{R} : 2<x<5\}"), ("(2,5)", "2<x<5"), ("(2,5)", "5>x>2"), ("(1,5)", "|x-3|<2"),
        ("|x|>3", r"(-\infty,-3)\cup(3,\infty)"), ("(2,5)", "2<y<5"), ("x>2 and x<5", "(2,5)"), (r"(2,\infty)", "x>2"),
        (r"\mathbb{R}", "all real numbers"), (r"(-\infty,2)\cup(2,\infty)", r"x \neq 2"), (r"x\neq 2", r"\mathbb{R}\setminus\{2\}"), ("x<3", "3>x"),
        (r"(2,5) \cup (7,9)", r"(7,9) \cup (2,5)"),
    ],
    "vectors and matrices": [
        (r"\begin{pmatrix}2\\-3\end{pmatrix}", r"\langle 2,-3\rangle"), ("(2,-3)", r"\langle 2,-3\rangle"),
        (r"\langle 2,-3\rangle", r"2\mathbf{i}-3\mathbf{j}"), (r"\langle 2,-3\rangle", r"2\hat{i}-3\hat{j}"),
        (r"\langle 1,0,-1\rangle", r"\mathbf{i}-\mathbf{k}"), (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", "[[1,2],[3,4]]"),
        ("[[1, 2], [3, 4]]", "[[1,2],[3,4]]"), (r"2\mathbf{i}-3\mathbf{j}", r"-3\mathbf{j}+2\mathbf{i}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "[1,2]"),
    ],
    "bases": [
        ("101_2", r"101_{\text{two}}"), ("101_2", "(101)_2"), ("5", "101_2"), ("FF_{16}", "255"), ("1A_{16}", "26"),
    ],
    "units and currencies": [
        ("10 years old", "10"), ("48", "48 sq. ft."), ("9.8", r"9.8 \mathrm{m\,s^{-2}}"), ("3/4 cup", "3/4"), ("9.8", "9.8 m/s^2"), ("5", "5 m/s"),
        ("12", "12 cm²"), ("12", "12 cubic meters"), ("5", "5 km/h"), ("5", "5 hrs."), ("5", "5 lbs"), ("5", r"5\ \text{units}^2"), ("60", "60 mph"),
        ("5", "US$5"), ("5", "5 USD"), ("5", "USD 5"), ("5", "Rs. 5"), ("5", "Rs 5"), ("5", "€5"), ("5", "5 euros"), ("5", "£5"),
        ("1500", "$1,500.00"), ("5", "5 rupees"),
    ],
    "bare function names": [
        ("e^9-1", "exp(9)-1"), ("e^{x}", "exp(x)"), ("e^{2x}", r"\exp(2x)"), (r"O(\log n)", "O(log n)"), (r"O(n\log n)", "O(n log n)"),
    ],
    "Markdown and number words": [
        ("42", "`42`"), ("42", "*42*"), ("42", "= 42"), ("42", "**42**"), ("42", "__42__"), ("42", "forty-two"), ("-42", "negative 42"),
        ("-42", "negative forty-two"), ("-42", "minus 42"), ("100", "one hundred"), ("42", "Forty Two"), ("1000000", "one million"),
    ],
    "dots": [
        (r"1,2,\ldots,10", r"1,2,\dots,10"), ("1, 2, ..., 10", r"1,2,\cdots,10"),
    ],
    "text": [
        ("None", "none"), ("yes", "Yes."), ("1", "one"), ("2", "two"),
    ],
    "repeating decimals": [
        ("0.(3)", "1/3"),
    ],
    "special functions": [
        (r"\log_{10} 100", "2"), (r"\log 100", "2"), (r"\ln e", "1"), (r"\sin 30^\circ", "0.5"), (r"\tan 45°", "1"), (r"\binom{10}{3}", "120"),
    ],
    "irrational constants": [
        (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}"), (r"\cos 36^\circ", r"\frac{1+\sqrt5}{4}"), (r"\frac{1}{2}\ln 4", r"\ln 2"),
    ],
    "polynomials and powers": [
        ("x^2-1", "(x+1)(x-1)"), (r"\frac{x^2-1}{x-1}", "x+1"), ("(x+1)^2", "x^2+2x+1"), ("a^2-b^2", "(a-b)(a+b)"), ("2^{n+1}", r"2\cdot 2^n"),
    ],
    "equations": [
        ("y=2x+1", "2x-y+1=0"), ("x^2+y^2=4", "x^2+y^2-4=0"), ("x=y", "y=x"), ("x=2y", "y=x/2"),
    ],
    "separators": [
        ("1/2, 3", "3 and 0.5"), ("1 and 2", "1 or 2"), ("1,234", "1234"),
    ],
    "nested tuples": [
        (r"\{(1,2),(3,4)\}", r"\{(3,4),(1,2)\}"), ("(1,2), (3,4)", r"\{(3,4),(1,2)\}"),
    ],
    "signs, zeros and sizes": [
        ("5", "+5"), ("5", "5.0"), ("5", "05"), ("-0", "0"),
    ],
    "complex numbers": [
        ("3+4i", "4i+3"), (r"\frac{1}{i}", "-i"), (r"e^{i\pi/3}", r"\frac12+\frac{\sqrt3}{2}i"),
    ],
    "congruences": [
        ("7", "7 (mod 12)"), ("7", r"x \equiv 7 \pmod{12}"), (r"7 \pmod{12}", r"19 \pmod{12}"),
    ],
    "times, days and segments": [
        ("9:30", "9:30 am"), ("Monday", "monday"), ("AB = 5", "5"), ("AB+BC", "BC+AB"),
    ],
}  # fmt: skip
UNEQUAL = {
    "units": [
        ("2s", "2"), ("5t", "5"), (r"\frac{7}{2}c", r"\frac72"), (r"\sqrt{2} m", r"\sqrt2"), ("2^3", "2"), (r"n \text{ odd}", r"n \text{ even}"),
        ("5 cm", "6 cm"), ("-3 + c, -4 + c, c", "-4"),
    ],
    "percent": [
        (r"20\%", "2"), (r"20\%", "0.02"), (r"20\%", r"21\%"), (r"20\%, 20", "20, 0.3"), ("1/2", "2"),
    ],
    "words": [
        (r"\text{odd}", "even"), (r"\text{A, D}", "A, C"), (r"\text{A, D}", "A"), ("July 4", "July 5"), (r"\text{None}", "0"), ("(A, B)", "(B, A)"),
    ],
    "tuples and intervals": [
        ("(1,2)", "(2,1)"), ("(1,2)", "(1,2,3)"), ("(0,1]", "[0,1)"), ("(0,1)", "[0,1]"), (r"x \ge 3", r"(3,\infty)"), ("(1,200)", "1200"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \end{pmatrix}"), ("(1,2),(3,4)", "(2,1),(3,4)"),
    ],
    "lists and sets": [
        ("2, 2, 3", "2, 3"), ("1, 2", "1"), ("6 and 8", "8"), (r"\{1,2\}", r"\{1,3\}"), (r"\pm 1", "1"), (r"3 \pm \sqrt{2}", r"3+\sqrt2"),
        (r"\emptyset", "0"), ("2, 2", "2"), ("0,5", "0.6"),
    ],
    "systems": [
        ("x=1, y=2", "x=2, y=1"), ("x=1, y=2", "(2, 1)"), ("p=5,q=2;p=7,q=3", "p=5,q=3;p=7,q=2"), ("x = 1", "y = 1"), ("(2,1)", "y=2, x=1"),
        ("x=1", "x=1 or x=2"),
    ],
    "fractions": [
        (r"\frac12", r"\frac21"), ("11/2", "1 1/2"), (r"-1\frac12", "-0.5"), (r"2\frac{1}{3}", r"\frac23"), (r"\frac123", r"\frac{1}{23}"),
    ],
    "decimals": [
        ("0.333", r"\frac13"), (r"0.\overline{3}", "0.3"), ("3.14159", r"\pi"), (r"1.2 \times 10^5", "1.2"), ("1,000", "1"), ("1.414", r"\sqrt2"),
        ("2^{-200}", "2^{-201}"),
    ],
    "degrees and currencies": [
        (r"30^\circ", r"31^\circ"), (r"30^\circ", r"\frac{\pi}{6}"), (r"\$5", r"-\$5"), (r"\$5", r"\$6"),
    ],
    "times": [
        ("8:34 am", "8:34 pm"), ("12 am", "12 pm"), ("11:30", "11:31 a.m."), ("2:3", "3:2"),
    ],
    "expressions": [
        (r"\sqrt{x^2}", "x"), ("x^2+2x+1", "x^2+2x"), ("3+4i", "3-4i"), (r"1-\frac1e", r"1+\frac1e"), (r"\ln 2", r"\log_{10} 2"), ("x", "y"),
        (r"\sqrt{x-5}", r"\sqrt{x-6}"), (r"\sqrt{-x-5}", r"\sqrt{-x-6}"), (r"\log(x-9)", r"\log(x-8)"), ("y=2x+1", "y=2x-1"),
        ("x^2+y^2=1", "x^2+y^2=2"), ("k!=3", "3"),
    ],
    "exact numbers": [
        ("2^{1000}", "2^{1000}+1"), ("30!", "30!+1"), (r"\frac{1}{1009!}", r"\frac{1}{1011!}"), (r"1-\frac{1}{2^{100}}", "1"),
    ],
    "tuples and sets": [
        ("(2,5)", r"\{2,5\}"), ("(5,2)", r"\{5,2\}"), ("(5,2)", r"\{2,5\}"), ("3, 2", "(2,3)"), ("[2,3]", "(2,3)"),
    ],
    "equations and values": [
        ("3", r"\frac{x}{2}=3"), ("5", "x+y=5"), ("5", "2x=5"), ("5", "x^2=5"), ("5", "xy=5"), ("5", r"\sin x = 5"), ("5", "x+1=5"),
    ],
    "letters and words": [
        ("HTH", "HHT"), ("ABD", "BAD"), ("no", "on"), ("Amy", "May"), ("ABC", "BCA"), ("cat", "act"), ("TTH", "THT"), ("RRL", "RLR"), ("i", "1"),
        ("eat", "tea"),
    ],
    "words after numbers": [
        ("5", "5 squared"), ("5", "5 thirds"), ("3", "3 halves"), ("5", "5 factorial"), ("5", "5 lakh"), ("5", "5 dozen"), ("5", "5 gross"),
        ("5", "5 crore"), ("5", "5 score"), ("5", "5 tenths"), ("5", "5 choose 2"), ("5", "5 over 2"), ("5", "5 less"), ("5", "5 times as many"),
        ("5", "5 or more"), ("5", "5 at least"), ("5", "5 unknownium"), ("5", "5k"), ("5", "5M"), ("5", "5!"),
    ],
    "dates and codes": [
        ("2017", "2023-05-01"), ("0", "0x1F"), ("555-1234", "-679"), ("01/02/2023", "1/4046"), ("192.168.0.1", "192"),
    ],
    "functions": [
        ("f(x)=2x+1", "g(x)=2x+1"),
    ],
    "conditions": [
        ("n^2 for n>1", "n^2 for n<1"),
    ],
    "multiple choice": [
        ("E", "(D) 42"),
    ],
    "intervals in other spellings": [
        ("[2,5]", "2<x<5"), ("2<x<5", "2<y<5"), (r"[2,\infty)", "x>2"),
    ],
    "vectors and matrices": [
        (r"\begin{bmatrix}1&2\\3&4\end{bmatrix}", "[[1,2],[3,5]]"), (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    ],
    "bases": [
        ("101_2", "101"), ("101_2", "101_3"),
    ],
    "bare function names": [
        ("O(n)", "O(n^2)"), (r"O(n \log n)", r"O(\log n)"),
    ],
    "text": [
        ("true", "false"), ("0", "no"), ("two", "three"),
    ],
    "irrational constants": [
        (r"\sqrt{2}+\sqrt{3}", r"\sqrt{5+2\sqrt{6}}+10^{-50}"), (r"\pi", r"\pi+10^{-400}"), (r"e^{\pi}", r"\pi^e"),
    ],
    "polynomials and powers": [
        ("x+1", "x+1+10^{-60}"),
    ],
    "equations": [
        ("x+y=1", "x+y=2"),
    ],
    "separators": [
        ("3 5", "35"), ("1,2", "1.2"), ("1.234", "1234"), ("12,34", "1234"),
    ],
    "nested tuples": [
        ("((1,2),3)", "(1,(2,3))"),
    ],
    "signs, zeros and sizes": [
        ("5", "5.00000001"), ("10^{100}", "10^{100}+1"), ("99999999999999999999", "99999999999999999998"), ("1e400", "1e401"),
        ("10^{10^{10}}", "10^{10^{10}}+1"), ("2^{2^{100}}", "2^{2^{101}}"),
    ],
    "complex numbers": [
        ("i", "-i"),
    ],
    "congruences": [
        (r"7 \pmod{12}", r"7 \pmod{13}"),
    ],
    "times, days and segments": [
        ("9:30 pm", "9:30 am"), ("Monday", "Tuesday"), ("Jluy 4", "July 4"),
    ],
}  # fmt: skip
